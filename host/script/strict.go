package script

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxItems bounds every repeated field. Unmarshalling costs up to a hundred
// times a message's size in memory when it consists of empty items (two bytes
// each), so they are counted first. A field that is not listed here may have
// none.
var maxItems = map[protoreflect.FullName]int{
	"circles.v1.Script.lent":      MaxLent,
	"circles.v1.Script.chain":     MaxChain,
	"circles.v1.Within.contexts":  MaxWithin,
	"circles.v1.Receipt.policies": MaxPolicies,
	"circles.v1.Receipt.effects":  MaxEffects,
	"circles.v1.Receipt.via":      MaxChain,
	"circles.v1.Receipt.parts":    MaxParts,
	"circles.v1.Receipt.sent":     MaxSent,
	"circles.v1.Listing.entries":  MaxListing,
	"circles.v1.Records.records":  MaxRecords,

	"circles.v1.Delegation.targets": MaxTargets,
	"circles.v1.Delegation.entries": MaxEntries,
	"circles.v1.Delegation.allows":  MaxAllows,
}

// unmarshal parses b into m if b is the one encoding of what it says (see
// script.proto). With tolerant, fields that this version does not know are
// skipped, otherwise refused.
func unmarshal(b []byte, m proto.Message, tolerant bool) error {
	if err := strict(b, m.ProtoReflect().Descriptor(), tolerant); err != nil {
		return err
	}
	// Checks UTF-8 too.
	return proto.UnmarshalOptions{DiscardUnknown: tolerant}.Unmarshal(b, m)
}

func marshal(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// strict walks b without allocating and reports the first place where it is not
// the one encoding of a message of this type. It is linear in len(b) times the
// depth of the type, which is at most four and never recursive.
//
// Protobuf parsers differ in what they make of a field that comes twice or of a
// varint that is too long; here nobody can be shown two meanings of the same
// signed bytes, because such bytes have none.
func strict(b []byte, md protoreflect.MessageDescriptor, tolerant bool) error {
	var (
		last   protowire.Number
		items  int
		oneofs uint64 // bit i: a member of the i-th oneof was seen
	)
	for len(b) > 0 {
		tag, n := varint(b)
		if n < 0 {
			return fmt.Errorf("%s: cut short or padded after field %d", md.Name(), last)
		}
		b = b[n:]
		num, typ := protowire.DecodeTag(tag)
		if num < protowire.MinValidNumber || num > protowire.MaxValidNumber {
			return fmt.Errorf("%s: no valid field after field %d", md.Name(), last)
		}
		if num < last {
			return fmt.Errorf("%s: field %d comes after field %d", md.Name(), num, last)
		}
		fd := md.Fields().ByNumber(num)
		if fd == nil {
			if !tolerant {
				return fmt.Errorf("%s: field %d is not known to this version, and it may restrict what the rest means", md.Name(), num)
			}
			n := protowire.ConsumeFieldValue(num, typ, b)
			if n < 0 {
				return fmt.Errorf("%s: field %d is cut short", md.Name(), num)
			}
			b, last = b[n:], num
			continue
		}
		switch {
		case num != last:
			items = 1
		case fd.IsList():
			items++
		default:
			return fmt.Errorf("%s: %s is there twice", md.Name(), fd.Name())
		}
		last = num
		if fd.IsList() && items > maxItems[fd.FullName()] {
			return fmt.Errorf("%s: more than %d %s", md.Name(), maxItems[fd.FullName()], fd.Name())
		}
		if o := fd.ContainingOneof(); o != nil {
			if oneofs&(1<<o.Index()) != 0 {
				return fmt.Errorf("%s: more than one kind of %s", md.Name(), o.Name())
			}
			oneofs |= 1 << o.Index()
		}
		n, empty, err := value(b, fd, typ, tolerant)
		if err != nil {
			return err
		}
		if empty && !fd.IsList() && !fd.HasPresence() {
			return fmt.Errorf("%s: %s is written though it is empty", md.Name(), fd.Name())
		}
		b = b[n:]
	}
	return nil
}

// value checks one field's value at the start of b and returns its length.
func value(b []byte, fd protoreflect.FieldDescriptor, typ protowire.Type, tolerant bool) (n int, empty bool, err error) {
	want := protowire.BytesType
	limit := uint64(math.MaxUint64)
	switch fd.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
	case protoreflect.Int64Kind, protoreflect.Uint64Kind:
		want = protowire.VarintType
	case protoreflect.Uint32Kind:
		want, limit = protowire.VarintType, math.MaxUint32
	case protoreflect.EnumKind:
		want, limit = protowire.VarintType, math.MaxUint8
	case protoreflect.BoolKind:
		want, limit = protowire.VarintType, 1
	default:
		return 0, false, fmt.Errorf("%s: a kind of field that is not used here", fd.FullName())
	}
	if typ != want {
		return 0, false, fmt.Errorf("%s: wire type %d, must be %d", fd.FullName(), typ, want)
	}
	v, n := varint(b)
	if n < 0 {
		return 0, false, fmt.Errorf("%s: cut short or padded", fd.FullName())
	}
	if want == protowire.VarintType {
		if v > limit {
			return 0, false, fmt.Errorf("%s: %d is out of range", fd.FullName(), v)
		}
		return n, v == 0, nil
	}
	if v > uint64(len(b)-n) {
		return 0, false, fmt.Errorf("%s: cut short", fd.FullName())
	}
	end := n + int(v)
	if fd.Kind() == protoreflect.MessageKind {
		if err := strict(b[n:end], fd.Message(), tolerant); err != nil {
			return 0, false, err
		}
	}
	return end, v == 0, nil
}

// varint reads a varint of minimal length; n is negative if there is none.
func varint(b []byte) (v uint64, n int) {
	v, n = protowire.ConsumeVarint(b)
	if n > 0 && n != protowire.SizeVarint(v) {
		return 0, -1
	}
	return v, n
}
