package hosts

import (
	"reflect"
	"testing"
)

func TestTailKeepsTheLastLines(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{
		{"", 3, ""},
		{"a\nb\n", 3, "a\nb"},
		{"a\nb\nc\n", 3, "a\nb\nc"},
		{"a\nb\nc\nd\n", 3, "...\nb\nc\nd"},
	} {
		if got := tail(c.in, c.n); got != c.want {
			t.Errorf("tail(%q, %d) = %q, want %q", c.in, c.n, got, c.want)
		}
	}
}

func TestSAsOfSwanctl(t *testing.T) {
	got := parseSAs(`list-sa event {c {uniqueid=1 remote-id=C=CH, O=a b initiator=yes child-sas {net-1 {state=INSTALLED local-ts=[10.1.0.0/24 10.3.0.0/24]} net-2 {state=REKEYED}}}}
list-sa event {d {state=CONNECTING tasks-active=[IKE_VENDOR IKE_INIT] child-sas {}}}
list-sas reply {}
`)
	want := []SwanSA{
		{"c", map[string]string{"uniqueid": "1", "remote-id": "C=CH, O=a b", "initiator": "yes"}, []SwanSA{
			{"net-1", map[string]string{"state": "INSTALLED", "local-ts": "[10.1.0.0/24 10.3.0.0/24]"}, nil},
			{"net-2", map[string]string{"state": "REKEYED"}, nil},
		}},
		{"d", map[string]string{"state": "CONNECTING", "tasks-active": "[IKE_VENDOR IKE_INIT]"}, nil},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
