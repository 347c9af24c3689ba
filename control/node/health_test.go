package node

import (
	"reflect"
	"testing"

	"causeway/config"
	"causeway/control/health"
	"causeway/control/health/history"
)

// What the file may say of samples the machine can keep.
var _ = [1]struct{}{}[config.MaxHealthSamples-health.MaxSamples]

// Of a tunnel that is probed all that its file says is handed on, and of one that is not nothing.
func TestProbed(t *testing.T) {
	h := new(config.HealthCheck)
	v := reflect.ValueOf(h).Elem()
	for i := range v.NumField() { // to each field something of its own
		switch f := v.Field(i); f.Kind() {
		case reflect.Int, reflect.Int64:
			f.SetInt(int64(10 + i))
		case reflect.Float64:
			f.SetFloat(float64(i) / 100)
		}
	}
	h.Type = config.HealthRequest
	got := probed(&config.Config{Tunnels: []config.Tunnel{{Name: "a"}, {Name: "b", HealthCheck: h}}})
	if len(got) != 1 || got[0].Name != "b" || got[0].Kind != health.Request || got[0].Interval != h.Interval || got[0].Retry != h.Retry {
		t.Fatalf("%+v", got)
	}
	thresholds := reflect.ValueOf(got[0].Thresholds)
	for i := range thresholds.NumField() {
		name := thresholds.Type().Field(i).Name
		if want := v.FieldByName(name).Interface(); thresholds.Field(i).Interface() != want {
			t.Errorf("%s is %v, want %v", name, thresholds.Field(i), want)
		}
	}
	for s, want := range map[health.State]uint32{health.Healthy: 0, health.Degraded: 500_000, health.Down: 1_000_000} {
		if penaltyOf(s) != want {
			t.Errorf("%v costs %d", s, penaltyOf(s))
		}
	}
}

// Those tunnels are noted that were not healthy when the daemon ended, by the last that the history says of them.
func TestAnew(t *testing.T) {
	past := []history.Event{{Tunnel: "a", State: "down"}, {Tunnel: "b", State: "down"}, {Tunnel: "c", State: "degraded"}, {Tunnel: "b", State: "healthy"}, {Tunnel: "gone", State: "down"}}
	got := anew(past, []health.Tunnel{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "new"}})
	if len(got) != 2 || got[0].Tunnel != "a" || got[0].Was != "down" || got[1].Tunnel != "c" || got[1].Was != "degraded" || got[1].State != "healthy" || got[1].Why == "" {
		t.Errorf("%+v", got)
	}
}
