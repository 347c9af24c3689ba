// Command generate writes what analytics/graph takes from the datasets: schema.graphql, and types_gen.go with the resolvers of its
// types. Run it by go generate ./analytics/graph; a test says when the files are not current.
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"causeway/analytics/dataset"
)

func main() {
	types, err := goTypes(dataset.All)
	if err == nil {
		err = os.WriteFile("schema.graphql", schema(dataset.All), 0o644)
	}
	if err == nil {
		err = os.WriteFile("types_gen.go", types, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// blocks are the parts of a group that measures stand in, in the order of the schema.
var blocks = []dataset.Block{dataset.Avg, dataset.Sum, dataset.Max, dataset.P95}

// grouped reports whether a dataset has groups. Attacks are a list: dimensions and measures stand in the item itself.
func grouped(d *dataset.Dataset) bool { return d.Table != dataset.AttackTable }

// has reports whether a dataset has measures in a block.
func has(d *dataset.Dataset, b dataset.Block) bool {
	return slices.ContainsFunc(d.Measures, func(m dataset.Measure) bool { return m.Block == b })
}

// estimated are the blocks that have an interval of confidence, where the dataset has such measures. Maxima and percentiles are
// counted, never estimated.
func estimated(d *dataset.Dataset) (out []dataset.Block) {
	for _, b := range []dataset.Block{dataset.Avg, dataset.Sum} {
		if has(d, b) {
			out = append(out, b)
		}
	}
	return out
}

// title is a name with a capital first: a Go method, or the end of a type's name.
func title(name string) string { return strings.ToUpper(name[:1]) + name[1:] }
