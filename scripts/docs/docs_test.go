package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"causeway/pipeline"
)

const root = "../.."

func TestTablesAreCurrent(t *testing.T) {
	if err := run(root, true); err != nil {
		t.Error(err)
	}
}

// tables are those of the page of operations.
func tables(t *testing.T) map[string]*table {
	t.Helper()
	metrics, err := readMetrics(filepath.Join(root, "control/metrics/collector.go"))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*table{"reasons": reasonTable(), "metrics": metricTable(metrics)}
}

// Each way in which a page can miss a row, or a mark be wrong, is told.
func TestMarks(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, want string }{
		{"generated: reasons punt ", "generated: reasons size ", "stands in two tables"},
		{"generated: reasons punt ", "generated: reasons nowhere ", `no drop reasons of "nowhere"`},
		{"generated: metrics build_info node_info ready ", "generated: metrics build_info node_info ", "metric ready stands in no table"},
		{"generated: reasons punt ", "generated: excuses punt ", "not the beginning of a generated table"},
		{"generated: metrics tun ", "generated: metrics tunnel ", "stands in two tables"},
	} {
		if _, err := fill(tables(t), strings.Replace(string(text), c.from, c.to, 1)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: %v, want %q", c.to, c.from, err, c.want)
		}
	}
	broken := strings.Replace(string(text), "| `no_route` |", "| `no_road` |", 1)
	whole, err := fill(tables(t), broken)
	if err != nil || whole != string(text) || broken == whole {
		t.Errorf("a row that was changed by hand is not made anew: %v", err)
	}
}

// The collector is unchecked, so its source is read; a metric that is read wrongly would be missing from the page.
func TestMetricsAreRead(t *testing.T) {
	list, err := readMetrics(filepath.Join(root, "control/metrics/collector.go"))
	if err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadFile(filepath.Join(root, "control/metrics/testdata/names.txt"))
	if err != nil {
		t.Fatal(err)
	}
	read, kinds := map[string]metric{}, map[string]int{}
	for _, m := range list {
		read["causeway_"+m.name] = m
		kinds[m.kind]++
		if total := strings.HasSuffix(m.name, "_total"); total != (m.kind == "counter") {
			t.Errorf("%s is a %s", m.name, m.kind)
		}
	}
	for _, n := range strings.Fields(string(names)) {
		if _, ok := read[n]; !ok {
			t.Errorf("%s was not read", n)
		}
		delete(read, n)
	}
	if len(read) > 0 || kinds["histogram"] != 1 {
		t.Errorf("%d metrics too many, kinds %v", len(read), kinds)
	}
}

// Every page of the documentation.
func pages(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil || len(list) < 3 {
		t.Fatalf("%d pages: %v", len(list), err)
	}
	return append(list, filepath.Join(root, "README.md"))
}

var link = regexp.MustCompile(`\[([^\]\[]*)\]\(([^)\s]+)\)`)

// TestLinks: what the pages link to is there. A link whose text is a name in code style, such as `worker.parse`, and
// which leads to a source file, names something that is declared there.
func TestLinks(t *testing.T) {
	declared := map[string]map[string]bool{}
	for _, p := range pages(t) {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range strings.Split(string(text), "\n") {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				if err := checkLink(declared, p, m[1], m[2]); err != nil {
					t.Errorf("%s:%d: %v", filepath.Base(p), n+1, err)
				}
			}
		}
	}
}

func checkLink(declared map[string]map[string]bool, page, text, target string) error {
	if strings.Contains(target, "://") || strings.HasPrefix(target, "#") {
		return nil
	}
	file, _, _ := strings.Cut(target, "#")
	path := filepath.Join(filepath.Dir(page), file)
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("[%s](%s) leads nowhere", text, target)
	}
	name, isCode := strings.CutPrefix(text, "`")
	name = strings.TrimSuffix(name, "`")
	if !isCode || strings.ContainsAny(name, "/ ") || name == filepath.Base(path) {
		return nil
	}
	if declared[path] == nil {
		var err error
		if declared[path], err = names(path); err != nil {
			return err
		}
	}
	if !declared[path][name] {
		return fmt.Errorf("%s declares no %s", target, name)
	}
	return nil
}

// names are what a source file declares: its package, functions, methods as Type.name and name, types, constants and variables. Of
// other files than Go's it is every word.
func names(path string) (map[string]bool, error) {
	all := map[string]bool{}
	if filepath.Ext(path) != ".go" {
		text, err := os.ReadFile(path)
		for _, w := range regexp.MustCompile(`\w+`).FindAllString(string(text), -1) {
			all[w] = true
		}
		return all, err
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	all[file.Name.Name] = true
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			all[receiver(d)+d.Name.Name] = true
			all[d.Name.Name] = true
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					all[s.Name.Name] = true
				case *ast.ValueSpec:
					for _, n := range s.Names {
						all[n.Name] = true
					}
				}
			}
		}
	}
	return all, nil
}

// receiver is the type of a method and a dot, or nothing.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	t := f.Recv.List[0].Type
	if s, ok := t.(*ast.StarExpr); ok {
		t = s.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name + "."
	}
	return ""
}

// TestRFCMap: each row of the map's tables names at least one function and one test.
func TestRFCMap(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/rfc-map.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for n, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) != 4 || strings.HasPrefix(line, "| section") {
			continue
		}
		rows++
		if !strings.Contains(cells[2], "](../") {
			t.Errorf("rfc-map.md:%d: no function: %s", n+1, line)
		}
		tested := false
		for _, m := range link.FindAllStringSubmatch(cells[3], -1) {
			tested = tested || strings.HasSuffix(m[2], "_test.go") || strings.HasSuffix(m[2], ".patch")
		}
		if !tested {
			t.Errorf("rfc-map.md:%d: no test: %s", n+1, line)
		}
	}
	if rows < 60 {
		t.Errorf("the map has %d rows", rows)
	}
}

// TestLinksCanBeWrong: the check above finds what it is for.
func TestLinksCanBeWrong(t *testing.T) {
	p := filepath.Join(root, "docs/rfc-map.md")
	for _, c := range []struct {
		text, target string
		good         bool
	}{
		{"`worker.parse`", "../pipeline/parse.go", true},
		{"`worker.parsed`", "../pipeline/parse.go", false},
		{"`martian4`", "../pipeline/parse.go", true},
		{"`parse.go`", "../pipeline/parse.go", true},
		{"anything", "../pipeline/parse.go", true},
		{"anything", "../pipeline/parsing.go", false},
		{"`causeway_steer`", "../xsk/bpf/steer.bpf.c", true},
		{"`causeway_steers`", "../xsk/bpf/steer.bpf.c", false},
	} {
		if err := checkLink(map[string]map[string]bool{}, p, c.text, c.target); (err == nil) != c.good {
			t.Errorf("[%s](%s): %v", c.text, c.target, err)
		}
	}
}

// TestAdviceNamesReasons: what the hand-written advice begins with is a drop reason that exists.
func TestAdviceNamesReasons(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Drop reasons\n")
	section, _, _ = strings.Cut(section, "\n## ")
	known := map[string]bool{}
	for _, r := range pipeline.AllReasons() {
		known[r.String()] = true
	}
	advice := regexp.MustCompile("(?m)^- (`[a-z0-9_]+`(?:, `[a-z0-9_]+`)*):").FindAllStringSubmatch(section, -1)
	if len(advice) < 30 {
		t.Errorf("%d lines of advice", len(advice))
	}
	for _, m := range advice {
		for _, label := range strings.Split(m[1], ", ") {
			if label = strings.Trim(label, "`"); !known[label] {
				t.Errorf("there is no drop reason %s", label)
			}
		}
	}
}

// TestEveryFieldIsExplained: the JSON contract on the page has every field of the interface.
func TestEveryFieldIsExplained(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(root, "control/api/types.go"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## JSON\n")
	fields := regexp.MustCompile(`json:"(\w+)`).FindAllStringSubmatch(string(source), -1)
	if len(fields) < 80 {
		t.Errorf("%d fields", len(fields))
	}
	for _, m := range fields {
		if !strings.Contains(section, "`"+m[1]+"`") {
			t.Errorf("%s is not explained", m[1])
		}
	}
}
