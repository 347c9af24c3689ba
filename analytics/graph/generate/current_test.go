package main

import (
	"bytes"
	"os"
	"testing"

	"causeway/analytics/dataset"
)

// TestCurrent fails when the datasets have changed and nobody has generated again.
func TestCurrent(t *testing.T) {
	types, err := goTypes(dataset.All)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string][]byte{"../schema.graphql": schema(dataset.All), "../types_gen.go": types} {
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not current (%v): run go generate ./analytics/graph", file, err)
		}
	}
}
