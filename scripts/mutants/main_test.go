package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		name, expression string
		events           []string
		want             verdict
	}{
		{"the named test failed", "^TestA$", []string{`{"Action":"fail","Test":"TestA"}`, `{"Action":"fail"}`}, killed},
		{"the named test passed", "^TestA$", []string{`{"Action":"pass","Test":"TestA"}`, `{"Action":"pass"}`}, survived},
		{"no test of that name", "^TestA$", []string{`{"Action":"output","Output":"no tests to run"}`, `{"Action":"pass"}`}, broken},
		{"does not compile", "^TestA$", []string{`{"Action":"build-fail","ImportPath":"p"}`, `{"Action":"fail"}`}, broken},
		{"the package failed without the test", "^TestA$", []string{`{"Action":"fail"}`}, broken},
		{"a skipped test proves nothing", "^TestA$", []string{`{"Action":"run","Test":"TestA"}`, `{"Action":"skip","Test":"TestA"}`, `{"Action":"pass"}`}, broken},
		{"out of time", "^TestA$", []string{`{"Action":"run","Test":"TestA"}`, `{"Action":"pass","Test":"TestA/x"}`, `{"Action":"fail"}`}, killed},
		{"the subtest failed", "^TestA$/^x$", []string{`{"Action":"fail","Test":"TestA/x"}`, `{"Action":"fail","Test":"TestA"}`}, killed},
		{"another test failed", "^TestA$", []string{`{"Action":"fail","Test":"TestAB"}`, `{"Action":"pass","Test":"TestA"}`, `{"Action":"fail"}`}, survived},
		{"one of several failed", "^TestA", []string{`{"Action":"pass","Test":"TestA"}`, `{"Action":"fail","Test":"TestAB"}`, `{"Action":"fail"}`}, killed},
		{"only the test above failed", "^TestA$/^x$", []string{`{"Action":"pass","Test":"TestA/x"}`, `{"Action":"fail","Test":"TestA"}`}, survived},
	} {
		m := mutant{test: c.expression}
		o := readEvents([]byte(strings.Join(c.events, "\n")), nil, m.level())
		if got, why := o.verdict(m.names()); got != c.want {
			t.Errorf("%s: %s (%s), want %s", c.name, got, why, c.want)
		}
	}
}

// Parts have no mutant in common, and together they have all.
func TestParts(t *testing.T) {
	all := []mutant{{name: "a"}, {name: "b"}, {name: "c"}, {name: "d"}, {name: "e"}}
	for part, want := range map[string]string{"0/1": "abcde", "0/2": "ace", "1/2": "bd", "4/5": "e"} {
		got := ""
		some, err := partOf(all, part)
		for _, m := range some {
			got += m.name
		}
		if err != nil || got != want {
			t.Errorf("%s: %q (%v), want %q", part, got, err, want)
		}
	}
	for _, part := range []string{"", "1", "2/2", "-1/2", "0/0", "1/2x", "5/6"} {
		if some, err := partOf(all, part); err == nil {
			t.Errorf("%q: %d mutants", part, len(some))
		}
	}
}

func TestParse(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("good.patch", "Breaks: the sum: all of it\nPackage: ./wire\nRun: ^TestSum$\n\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-Run: a\n+Run: b\n")
	mutants, err := load(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := mutants[0]
	if m.name != "good" || m.breaks != "the sum: all of it" || m.pkg != "./wire" || m.test != "^TestSum$" {
		t.Errorf("parsed %+v", m)
	}
	if _, err := load(dir, []string{"good", "absent"}); err == nil {
		t.Error("a name that does not exist was accepted")
	}
	write("bad.patch", "Breaks: something\n--- a/x\n+++ b/x\nRun: not in the header\n")
	if _, err := load(dir, nil); err == nil || !strings.Contains(err.Error(), "bad.patch") {
		t.Errorf("a patch without a header: %v", err)
	}
}
