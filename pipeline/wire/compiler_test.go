package wire

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// compile builds this package with compiler flags and returns what the compiler
// says. The go command repeats the diagnostics of a cached build.
func compile(t *testing.T, gcflags string) string {
	t.Helper()
	out, err := exec.Command("go", "build", "-gcflags="+gcflags, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go build -gcflags=%s: %v\n%s", gcflags, err, out)
	}
	return string(out)
}

// TestInlining fails when a function of the packet path that was small enough to
// be inlined no longer is. Those that never were (CheckIPv4, ParseGRE,
// ParseEthernet, ClampMSS) cost a call, 1 to 2 ns.
func TestInlining(t *testing.T) {
	out := compile(t, "-m")
	for _, name := range []string{
		"Fold", "Update16", "Update32", "PseudoSum4", "PseudoSum6", "DecTTL4",
		"IPv4IsFragment", "IPv4Fragment", "CheckIPv4Fragment", "CheckIPv6", "IsIPv6Extension",
		"PutIPv6", "PutGRE", "GRELen", "GREChecksumOK",
		"CheckUDP", "IsESPInUDP", "IsIKEInUDP", "IsNATKeepalive",
	} {
		if !strings.Contains(out, ": can inline "+name+"\n") {
			t.Errorf("%s is not inlined any more: go build -gcflags=-m=2 says why", name)
		}
	}
}

// TestBoundsChecks counts the bounds checks that the compiler leaves in the
// functions of the packet path: one where the caller vouches for the length,
// none where the length has been compared.
func TestBoundsChecks(t *testing.T) {
	allowed := map[string]int{
		"Sum": 0, "ParseEthernet": 0, "CheckIPv4": 0, "CheckIPv6": 0, "ClampMSS": 0,
		"IPv4IsFragment": 1, "IPv4Fragment": 1, "DecTTL4": 1, "PutIPv4": 1, "PutIPv6": 1,
	}
	funcs := functions(t)
	found := map[string]int{}
	// PutUint16(b[n:]) is a slice expression and the check of the function that it
	// calls, at different columns; a line that offends shows in either.
	for _, m := range regexp.MustCompile(`(?m)^\./([^:]+):(\d+):\d+: Found Is`).FindAllStringSubmatch(
		compile(t, "-d=ssa/check_bce/debug=1"), -1) {
		line, _ := strconv.Atoi(m[2])
		for _, f := range funcs {
			if f.file == m[1] && f.first <= line && line <= f.last {
				found[f.name]++
			}
		}
	}
	if found["parseTag"]+found["PutGRE"] == 0 {
		t.Fatal("the compiler's output is not understood: functions that have bounds checks show none")
	}
	for name, most := range allowed {
		if found[name] > most {
			t.Errorf("%s has %d bounds checks, allowed %d: go build -gcflags=-d=ssa/check_bce/debug=1 shows them", name, found[name], most)
		}
	}
}

type function struct {
	name, file  string
	first, last int
}

// functions returns the functions of this package with their lines.
func functions(t *testing.T) (list []function) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if d, ok := d.(*ast.FuncDecl); ok {
				list = append(list, function{d.Name.Name, name, set.Position(d.Pos()).Line, set.Position(d.End()).Line})
			}
		}
	}
	return list
}
