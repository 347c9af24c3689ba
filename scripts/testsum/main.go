// Command testsum runs go test one or more times and sums up: progress by package, each failure
// with all that its test printed, why tests were skipped, and as the last line
//
//	tests: N passed, N failed, N skipped
//
// Usage: testsum -- go test -json ... [-- go test -json ...]
//
// Each test counts once: a test with subtests counts through them, unless it fails on its own
// account. A package that does not build, panics or is out of time counts as a failure. The exit
// status is 0 only when something passed, nothing failed and every go test had status 0.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	runs := split(os.Args[1:])
	if len(runs) == 0 {
		fmt.Fprintln(os.Stderr, "usage: testsum -- go test -json ... [-- go test -json ...]")
		os.Exit(2)
	}
	s := newSummary(os.Stdout)
	for _, args := range runs {
		if err := run(s, args); err != nil {
			s.failed = append(s.failed, strings.Join(args, " ")+": "+err.Error())
		}
	}
	s.close()
	if len(s.failed) > 0 || s.passed == 0 {
		os.Exit(1)
	}
}

// split cuts the arguments into command lines at each --.
func split(args []string) [][]string {
	var runs [][]string
	for _, a := range args {
		if a == "--" {
			runs = append(runs, nil)
		} else if len(runs) > 0 {
			runs[len(runs)-1] = append(runs[len(runs)-1], a)
		}
	}
	return runs
}

// run feeds the output of one go test to the summary. Its exit status adds an error only when the
// events did not tell of any failure already.
func run(s *summary, args []string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stdout
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	before := len(s.failed)
	s.read(out)
	if err := cmd.Wait(); err != nil && len(s.failed) == before {
		return err
	}
	return nil
}

// event is one line of go test -json (go doc test2json; build events are of go build -json).
type event struct {
	Action  string
	Package string
	Test    string  // empty for events of the package itself
	Elapsed float64 // seconds
	Output  string
}

// name of the test, or of the package for events that are not a test's.
func (e event) name() string {
	if e.Test == "" {
		return e.Package
	}
	return e.Package + "." + e.Test
}

type summary struct {
	out     io.Writer
	passed  int
	failed  []string            // names
	skipped []string            // names and reasons
	output  map[string][]string // what tests printed that have not ended, by name
	running map[string]bool     // tests of a package that have not ended
	parents map[string]bool     // tests one of whose subtests was counted
	blamed  map[string]bool     // tests and packages below which a failure was counted
}

func newSummary(out io.Writer) *summary {
	return &summary{out: out, output: map[string][]string{}, running: map[string]bool{},
		parents: map[string]bool{}, blamed: map[string]bool{}}
}

func (s *summary) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<20) // a test may print a long line
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(s.out, lines.Text()) // go test's own messages are not JSON
			continue
		}
		s.event(e)
	}
	if err := lines.Err(); err != nil {
		s.failed = append(s.failed, "reading the output of go test: "+err.Error())
	}
}

func (s *summary) event(e event) {
	switch e.Action {
	case "run":
		s.running[e.name()] = true
	case "output":
		s.output[e.name()] = append(s.output[e.name()], e.Output)
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.packageEnd(e)
		} else {
			s.testEnd(e)
		}
		delete(s.output, e.name())
	}
}

func (s *summary) testEnd(e event) {
	name := e.name()
	delete(s.running, name)
	switch {
	case e.Action == "fail" && !s.blamed[name]:
		s.fail(e)
	case s.parents[name]: // counted through its subtests
		if e.Action == "fail" {
			s.show(e)
		}
	case e.Action == "skip":
		s.skipped = append(s.skipped, name+": "+reason(s.output[name]))
	case e.Action == "pass":
		s.passed++
	}
	for _, p := range above(e) {
		s.parents[p] = true
	}
}

// packageEnd prints the package's line, and counts a failure that no test stands for: a panic, a
// package that does not build, tests that had not ended.
func (s *summary) packageEnd(e event) {
	switch {
	case e.Action == "skip": // no test files
		return
	case e.Action == "pass":
		fmt.Fprintf(s.out, "ok    %-40s %6.1f s\n", e.Package, e.Elapsed)
		return
	}
	for name := range s.running {
		if strings.HasPrefix(name, e.Package+".") {
			delete(s.running, name)
			test := strings.TrimPrefix(name, e.Package+".")
			s.fail(event{Package: e.Package, Test: test, Elapsed: e.Elapsed})
		}
	}
	if !s.blamed[e.Package] {
		s.fail(e)
	}
	fmt.Fprintf(s.out, "FAIL  %-40s %6.1f s\n", e.Package, e.Elapsed)
}

func (s *summary) fail(e event) {
	s.failed = append(s.failed, e.name())
	for _, p := range above(e) {
		s.blamed[p] = true
	}
	s.show(e)
}

func (s *summary) show(e event) {
	fmt.Fprintf(s.out, "\n--- FAIL: %s (%.1f s)\n%s\n", e.name(), e.Elapsed, strings.Join(s.output[e.name()], ""))
}

// above returns the package of a test and the tests that it is a subtest of.
func above(e event) []string {
	names := []string{e.Package}
	for i, c := range e.Test {
		if c == '/' {
			names = append(names, e.Package+"."+e.Test[:i])
		}
	}
	return names
}

// reason is the text of t.Skip without the frame that go test draws around it.
func reason(output []string) string {
	var kept []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, " ")
}

func (s *summary) close() {
	if len(s.skipped) > 0 {
		fmt.Fprintf(s.out, "\nskipped:\n  %s\n", strings.Join(s.skipped, "\n  "))
	}
	if len(s.failed) > 0 {
		fmt.Fprintf(s.out, "\nfailed:\n  %s\n", strings.Join(s.failed, "\n  "))
	}
	fmt.Fprintf(s.out, "\ntests: %d passed, %d failed, %d skipped\n", s.passed, len(s.failed), len(s.skipped))
}
