package trial

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// The part of JUnit's XML that continuous integration services read.
// https://github.com/testmoapp/junitxml
type (
	junitSuite struct {
		XMLName  xml.Name    `xml:"testsuite"`
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Time     string      `xml:"time,attr"` // seconds
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		File    string        `xml:"file,attr"`
		Line    int           `xml:"line,attr,omitempty"`
		Time    string        `xml:"time,attr"`
		Failure *junitFailure `xml:"failure,omitempty"`
		Output  string        `xml:"system-out,omitempty"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit writes results as JUnit's XML. suite is the module's name, file that
// of the cases.
func WriteJUnit(w io.Writer, suite, file string, results []Result) error {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.6f", d.Seconds()) }
	s := junitSuite{Name: suite, Tests: len(results)}
	var all time.Duration
	for _, r := range results {
		c := junitCase{Name: inXML(r.Case.Name), Class: suite, File: file, Line: r.Case.Line, Time: seconds(r.Took), Output: inXML(string(r.Receipt.Log))}
		if !r.Passed() {
			s.Failures++
			c.Failure = &junitFailure{Message: inXML(r.Problems[0]), Text: inXML(strings.Join(r.Problems, "\n"))}
		}
		all += r.Took
		s.Cases = append(s.Cases, c)
	}
	s.Time = seconds(all)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(s); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// inXML replaces what no XML document may hold, however it is escaped.
// https://www.w3.org/TR/xml/#charsets
func inXML(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r != 0xfffe && r != 0xffff {
			return r
		}
		return utf8.RuneError
	}, s)
}
