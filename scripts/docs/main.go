// Command docs writes the generated tables of docs/operations.md, the drop reasons, from the table that the workers count by, and
// the metrics, from the source of their descriptions, and those of docs/analytics.md, what each dataset has, from the table that the
// schema is made of, and what tunnels have, from the schema. Text around the tables is written by hand.
//
//	go run ./scripts/docs           write the tables anew
//	go run ./scripts/docs -check    fail when they are not current
//
// A table stands between two comments. The first one says what it holds: the reasons of one stage, the metrics whose
// names begin with one of the words, the dimensions or measures of a dataset, or the fields of one of our own types. Each must stand in exactly one table.
//
//	<!-- generated: reasons parse -->
//	<!-- generated: metrics build_info node_info ready -->
//	<!-- generated: dimensions dosdAttackAnalyticsGroups -->
//	<!-- generated: fields CausewayTunnel -->
//	<!-- generated: end -->
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

//go:generate go run . -root ../..

// The files with tables, from the root of the tree.
const (
	page          = "docs/operations.md"
	analyticsPage = "docs/analytics.md"
)

func main() {
	root := flag.String("root", ".", "root `DIRECTORY` of the tree")
	check := flag.Bool("check", false, "write nothing; fail when the tables are not current")
	flag.Parse()
	if err := run(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

func run(root string, check bool) error {
	metrics, err := readMetrics(filepath.Join(root, "control/metrics/collector.go"))
	if err != nil {
		return err
	}
	fields, err := fieldTable()
	if err != nil {
		return err
	}
	return errors.Join(
		write(root, page, map[string]*table{"reasons": reasonTable(), "metrics": metricTable(metrics)}, check),
		write(root, analyticsPage, map[string]*table{"dimensions": dimensionTable(), "measures": measureTable(), "fields": fields}, check))
}

// write makes the tables of a page anew.
func write(root, page string, tables map[string]*table, check bool) error {
	path := filepath.Join(root, page)
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := fill(tables, string(old))
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	if bytes.Equal(old, []byte(text)) {
		return nil
	}
	if check {
		return fmt.Errorf("%s: the generated tables are not current: run make generate, and commit the result", page)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

const (
	begin = "<!-- generated: "
	end   = "<!-- generated: end -->"
)

// fill returns text with what stands between the comments made anew.
func fill(all map[string]*table, text string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, begin)
		out.WriteString(before)
		if !found {
			break
		}
		words, rest, ok := strings.Cut(rest, " -->\n")
		_, after, closed := strings.Cut(rest, end)
		what := strings.Fields(words)
		if !ok || !closed || len(what) < 2 || all[what[0]] == nil {
			return "", fmt.Errorf("%q: not the beginning of a generated table, or without an end", begin+words)
		}
		rows, err := all[what[0]].take(what[1:])
		if err != nil {
			return "", fmt.Errorf("%q: %w", begin+words, err)
		}
		fmt.Fprintf(&out, "%s%s -->\n%s%s", begin, words, rows, end)
		text = after
	}
	for _, t := range all {
		if err := t.rest(); err != nil {
			return "", err
		}
	}
	return out.String(), nil
}

// A table is rows under a heading, handed out once each.
type table struct {
	what    string
	heading []string
	rows    []row
	belongs func(r row, word string) bool
}

type row struct {
	group, name string
	cells       []string
	taken       bool
}

// take returns the rows that belong to one of the words, as Markdown.
func (t *table) take(words []string) (string, error) {
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.heading)
	b.WriteString(strings.Repeat("|---", len(t.heading)) + "|\n")
	for _, word := range words {
		found := false
		for i := range t.rows {
			r := &t.rows[i]
			if !t.belongs(*r, word) {
				continue
			}
			if r.taken {
				return "", fmt.Errorf("%s %s stands in two tables", t.what, r.name)
			}
			r.taken, found = true, true
			line(r.cells)
		}
		if !found {
			return "", fmt.Errorf("there are no %ss of %q", t.what, word)
		}
	}
	return b.String(), nil
}

// rest is an error if a row was not taken.
func (t *table) rest() error {
	for _, r := range t.rows {
		if !r.taken {
			return fmt.Errorf("%s %s stands in no table", t.what, r.name)
		}
	}
	return nil
}
