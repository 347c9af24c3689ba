package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"

	"github.com/graph-gophers/graphql-go"

	"causeway/analytics/dataset"
	"causeway/analytics/graph"
	"causeway/pipeline"
)

func code(s string) string { return "`" + s + "`" }

// reasonTable is the drop reasons, grouped by stage.
func reasonTable() *table {
	t := &table{
		what: "drop reason", heading: []string{"reason", "meaning", "rule"},
		belongs: func(r row, word string) bool { return r.group == word },
	}
	for _, r := range pipeline.AllReasons() {
		i := r.Info()
		t.rows = append(t.rows, row{group: string(i.Stage), name: i.Label, cells: []string{code(i.Label), i.Sentence, i.RFC}})
	}
	return t
}

// dimensionTable is what the datasets of analytics are grouped, filtered and ordered by.
func dimensionTable() *table {
	t := &table{
		what: "dimension", heading: []string{"dimension", "type", "meaning"},
		belongs: func(r row, word string) bool { return r.group == word },
	}
	for _, d := range dataset.All {
		for _, x := range d.Dimensions {
			t.rows = append(t.rows, row{group: d.Name, name: d.Name + "." + x.Name, cells: []string{code(x.Name), code(string(x.Type)), cmp.Or(x.Doc, "as in the header")}})
		}
	}
	return t
}

// measureTable is the numbers of the datasets.
func measureTable() *table {
	t := &table{
		what: "measure", heading: []string{"number", "type", "meaning"},
		belongs: func(r row, word string) bool { return r.group == word },
	}
	for _, d := range dataset.All {
		for _, m := range d.Measures {
			name := m.Name
			if m.Block != dataset.NoBlock {
				name = string(m.Block) + "." + name
			}
			t.rows = append(t.rows, row{group: d.Name, name: d.Name + "." + name, cells: []string{code(name), code(string(m.Type)), m.Doc}})
		}
	}
	return t
}

// A metric is one description of the collector.
type metric struct {
	name, help, kind string
	labels           []string
}

// fieldTable is what our own types of the schema have: those of datasets are in the other tables.
func fieldTable() (*table, error) {
	t := &table{
		what: "field", heading: []string{"field", "type", "meaning"},
		belongs: func(r row, word string) bool { return r.group == word },
	}
	schema, err := graphql.ParseSchema(graph.Schema, nil, graphql.UseStringDescriptions())
	if err != nil {
		return nil, err
	}
	for _, o := range schema.AST().Objects {
		if !strings.HasPrefix(o.Name, "Causeway") {
			continue
		}
		for _, f := range o.Fields {
			t.rows = append(t.rows, row{group: o.Name, name: o.Name + "." + f.Name,
				cells: []string{code(f.Name), code(strings.ReplaceAll(f.Type.String(), "!", "")), f.Desc}})
		}
	}
	return t, nil
}

func metricTable(list []metric) *table {
	t := &table{
		what: "metric", heading: []string{"metric", "type", "labels", "meaning"},
		belongs: func(r row, word string) bool { return r.group == word || strings.HasPrefix(r.group, word+"_") },
	}
	for _, m := range list {
		var labels []string
		for _, l := range m.labels {
			labels = append(labels, code(l))
		}
		t.rows = append(t.rows, row{
			group: m.name, name: m.name,
			cells: []string{code("causeway_" + m.name), m.kind, strings.Join(labels, ", "), m.help},
		})
	}
	return t
}

// readMetrics reads the descriptions from the collector's source, in its order: variables made by desc(name, help,
// labels...). How a metric is sent says what type it is.
func readMetrics(path string) ([]metric, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var names []string
	found, kinds := map[string]metric{}, map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			if m, ok := describes(n); ok {
				names = append(names, n.Names[0].Name)
				found[n.Names[0].Name] = m
			}
		case *ast.CallExpr:
			if name, kind := sends(n); kind != "" {
				kinds[name] = kind
			}
		}
		return true
	})
	var list []metric
	for _, name := range names {
		m := found[name]
		if m.kind = kinds[name]; m.kind == "" {
			return nil, fmt.Errorf("%s: %s is described and never sent", path, m.name)
		}
		list = append(list, m)
	}
	return list, nil
}

// describes reads a variable that is made by desc.
func describes(v *ast.ValueSpec) (m metric, ok bool) {
	if len(v.Values) != 1 || len(v.Names) != 1 {
		return m, false
	}
	call, ok := v.Values[0].(*ast.CallExpr)
	if !ok || calledName(call) != "desc" {
		return m, false
	}
	var words []string
	for _, a := range call.Args {
		l, ok := a.(*ast.BasicLit)
		if !ok {
			return m, false
		}
		w, err := strconv.Unquote(l.Value)
		if err != nil {
			return m, false
		}
		words = append(words, w)
	}
	if len(words) < 2 {
		return m, false
	}
	return metric{name: words[0], help: words[1], labels: words[2:]}, true
}

// sends returns the description that a call sends a value of, and as what.
func sends(c *ast.CallExpr) (name, kind string) {
	kind = map[string]string{"counter": "counter", "gauge": "gauge", "MustNewConstHistogram": "histogram"}[calledName(c)]
	if kind == "" || len(c.Args) == 0 {
		return "", ""
	}
	id, ok := c.Args[0].(*ast.Ident)
	if !ok {
		return "", ""
	}
	return id.Name, kind
}

func calledName(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}
