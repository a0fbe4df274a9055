package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

func receiptCommand() *cli.Command {
	return &cli.Command{
		Name:      "receipt",
		Usage:     "ask what became of a script that was pending when it was sent",
		ArgsUsage: "ID",
		Description: `ID is the beginning of the script's id, as send printed it. The very script is sent
again, which a host answers with what became of it, and never runs twice. Exit codes:
8 its target's owner has not decided yet; else those of send.`,
		Flags: []cli.Flag{
			rootFlag(),
			&cli.StringFlag{Name: "as", Usage: "the `PEER` who sent it"},
			&cli.StringFlag{Name: "host", Usage: "the worker's `URL`, instead of the one that the target's route names"},
			waitFlag(),
			&cli.StringFlag{Name: "receipt", Usage: "keep the signed receipt in `FILE`; log --receipt FILE reads it"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := first(args(c, 1, 1, "ID"), needs(c, "as")); err != nil {
				return err
			}
			root, err := openRoot(c)
			if err != nil {
				return err
			}
			from, err := root.Peers.Resolve(c.String("as"))
			if err != nil {
				return coded{exitNotFound, err}
			}
			s, err := findSent(from, c.Args().First())
			if err != nil {
				return err
			}
			if err := s.ask(c.Context, c, root); err != nil {
				return err
			}
			if err := s.await(c, root); err != nil {
				return err
			}
			if err := keepReceipt(c, s.Sent); err != nil {
				return err
			}
			return report(c, s.Sent)
		},
	}
}

func waitFlag() cli.Flag {
	return &cli.DurationFlag{Name: "wait", Usage: "if it is pending, ask again for `TIME` what became of it"}
}

// sentScript is a script that somebody of this root has sent. While it is pending it
// is kept in the folder of who sent it, as it has to be sent again to the letter.
type sentScript struct {
	host.Sent
	from peer.Entry
}

func sentFolder(from peer.Entry) string { return filepath.Join(from.Dir, "pending") }

func (s *sentScript) file() string {
	return filepath.Join(sentFolder(s.from), fmt.Sprintf("%x", s.ID[:]))
}

// keep writes the script down while it is pending, and forgets it afterwards.
func (s *sentScript) keep() error {
	if s.Receipt.Code != script.Pending {
		if err := os.Remove(s.file()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget a script that was pending: %w", err)
		}
		return nil
	}
	if _, err := os.Stat(s.file()); err == nil {
		return nil
	}
	err := os.MkdirAll(sentFolder(s.from), 0o700)
	if err == nil {
		err = os.WriteFile(s.file(), s.Sealed, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the script, to ask again what became of it: %w", err)
	}
	return nil
}

// findSent finds a script that was pending when it was sent.
func findSent(from peer.Entry, id string) (*sentScript, error) {
	prefix := strings.ToLower(strings.TrimPrefix(id, "sha256:"))
	s := &sentScript{from: from}
	for _, name := range names(sentFolder(from), "") {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if s.Sealed != nil {
			return nil, usage("%s is the beginning of more than one: say more of it", id)
		}
		var err error
		if s.ID, err = script.ParseDigest(name); err != nil {
			continue
		}
		if s.Sealed, err = os.ReadFile(filepath.Join(sentFolder(from), name)); err != nil {
			return nil, fmt.Errorf("read a script that was pending: %w", err)
		}
	}
	if s.Sealed == nil {
		return nil, coded{exitNotFound, fmt.Errorf("no script %s of %s was pending when it was last asked about; what became of others is in the receipt that came with them", id, who(from))}
	}
	return s, nil
}

// ask sends it again.
func (s *sentScript) ask(ctx context.Context, c *cli.Context, root *host.Root) error {
	v, err := envelope.OpenHeld(s.Sealed, s.ID, "")
	if err != nil {
		return coded{exitInvalid, fmt.Errorf("%s: %w", relative(s.file()), err)}
	}
	to, ok := root.Peers.ByID(v.Script().Target)
	if !ok {
		to = peer.Entry{ID: v.Script().Target}
	}
	via, err := route(ctx, root, to, c.String("host"))
	if err != nil {
		return err
	}
	defer via.Close()
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if s.Bytes, err = via.Send(ctx, s.Sealed, nil); err != nil {
		return err
	}
	if s.Receipt, _, err = envelope.OpenReceiptOf(s.ID, s.Bytes, via.host); err != nil {
		return fmt.Errorf("check the receipt: %w", err)
	}
	return s.keep()
}

const (
	askTime  = time.Minute
	askFirst = 250 * time.Millisecond // after the first answer; then twice as long each time
	askLast  = 15 * time.Second
)

// await asks again and again while it is pending, for as long as --wait says.
func (s *sentScript) await(c *cli.Context, root *host.Root) error {
	until := time.Now().Add(c.Duration("wait"))
	for pause := askFirst; s.Receipt.Code == script.Pending && time.Now().Before(until); pause = min(2*pause, askLast) {
		select {
		case <-c.Context.Done():
			return coded{exitInterrupted, fmt.Errorf("interrupted; it is pending, and %s receipt --as %s %s asks what became of it", host.Command, who(s.from), short(s.ID))}
		case <-time.After(min(pause, time.Until(until))):
		}
		if err := s.ask(c.Context, c, root); err != nil {
			return err
		}
	}
	return nil
}
