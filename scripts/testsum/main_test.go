package main

import (
	"slices"
	"strings"
	"testing"
)

// events writes the JSON of go test for lines of "action test": the test "" is the package itself.
func events(lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		action, test, _ := strings.Cut(l, " ")
		output := ""
		if action == "output" {
			test, output, _ = strings.Cut(test, " ")
		}
		b.WriteString(`{"Action":"` + action + `","Package":"p","Test":"` + test + `","Output":"` + output + `\n"}` + "\n")
	}
	return b.String()
}

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		name    string
		events  []string
		passed  int
		failed  []string
		skipped []string
		shown   string // a text that must be printed
	}{
		{name: "a test with subtests counts through them",
			events: []string{"run A", "run A/x", "run A/y", "pass A/x", "pass A/y", "pass A", "run B", "pass B", "pass "},
			passed: 3},
		{name: "a failing subtest is counted once, with what it printed",
			events: []string{"run A", "run A/x", "output A/x because", "fail A/x", "run A/y", "pass A/y", "fail A", "fail "},
			passed: 1, failed: []string{"p.A/x"}, shown: "because"},
		{name: "a test that fails beside its good subtests is counted",
			events: []string{"run A", "run A/x", "pass A/x", "output A own", "fail A", "fail "},
			passed: 1, failed: []string{"p.A"}, shown: "own"},
		{name: "a skipped test with its reason",
			events:  []string{"run A", "output A === RUN A", "output A no network", "output A --- SKIP: A", "skip A", "run B", "pass B", "pass "},
			passed:  1,
			skipped: []string{"p.A: no network"}},
		{name: "a package that fails without a test",
			events: []string{"output  build failed", "fail "},
			failed: []string{"p"}, shown: "build failed"},
		{name: "a test that had not ended when its package did",
			events: []string{"run A", "pass A", "run B", "output B stuck", "fail "},
			passed: 1, failed: []string{"p.B"}, shown: "stuck"},
		{name: "a package without tests is nothing",
			events: []string{"skip "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			s := newSummary(&out)
			s.read(strings.NewReader(events(c.events...)))
			if s.passed != c.passed || !slices.Equal(s.failed, c.failed) || !slices.Equal(s.skipped, c.skipped) {
				t.Errorf("passed %d, failed %q, skipped %q; want %d, %q, %q",
					s.passed, s.failed, s.skipped, c.passed, c.failed, c.skipped)
			}
			if !strings.Contains(out.String(), c.shown) {
				t.Errorf("printed %q without %q", out.String(), c.shown)
			}
		})
	}
}

func TestLastLineStandsAlone(t *testing.T) {
	var out strings.Builder
	s := newSummary(&out)
	s.read(strings.NewReader("go: downloading\n" + events("run A", "pass A", "pass ")))
	s.close()
	if !strings.HasPrefix(out.String(), "go: downloading\n") {
		t.Errorf("what is not JSON was not passed on: %q", out.String())
	}
	if !strings.HasSuffix(out.String(), "\ntests: 1 passed, 0 failed, 0 skipped\n") {
		t.Errorf("printed %q", out.String())
	}
}

func TestRunTellsOfAStatusWithoutEvents(t *testing.T) {
	var out strings.Builder
	s := newSummary(&out)
	if err := run(s, []string{"sh", "-c", "exit 3"}); err == nil {
		t.Error("status 3 without a failed test went unnoticed")
	}
	if err := run(s, []string{"/nonexistent"}); err == nil {
		t.Error("a command that does not start went unnoticed")
	}
}

func TestSplit(t *testing.T) {
	got := split([]string{"--", "a", "b", "--", "c"})
	if len(got) != 2 || !slices.Equal(got[0], []string{"a", "b"}) || !slices.Equal(got[1], []string{"c"}) {
		t.Errorf("split: %q", got)
	}
}
