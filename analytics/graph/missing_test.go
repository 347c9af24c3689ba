package graph

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"causeway/analytics/store"
)

// Nodes whose rows an answer lacks are named once, by name, beside the data; without any there are no extensions.
func TestMissingNodes(t *testing.T) {
	missing := []store.Missing{}
	s := serve(t, nil)
	s.store.answer = func(ctx context.Context, q *store.Query) (*store.Answer, error) {
		a, err := rows(1, 5)(ctx, q)
		a.Missing = missing
		return a, err
	}
	query := about(`a: magicTransitTunnelTrafficAdaptiveGroups(limit: 1, filter: {}) { sum { bits } }
		b: magicTransitTunnelTrafficAdaptiveGroups(limit: 1, filter: {}) { sum { packets } }`)
	ask := func() (extensions any) {
		t.Helper()
		var answer map[string]any
		status, body := s.post(tokenA, query, nil)
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK || answer["data"] == nil || answer["errors"] != nil {
			t.Fatalf("%d %s: %v", status, body, err)
		}
		return answer["extensions"]
	}
	if got := ask(); got != nil {
		t.Errorf("nothing is missing: %v", got)
	}
	missing = []store.Missing{{Node: "edge-3", Why: `it said "no"`}, {Node: "edge-2", Why: "nothing was heard of it for 12s"}}
	want := map[string]any{"missingNodes": []any{
		map[string]any{"node": "edge-2", "why": "nothing was heard of it for 12s"}, map[string]any{"node": "edge-3", "why": `it said "no"`}}}
	if d := cmp.Diff(want, ask()); d != "" {
		t.Error(d)
	}
}
