package node

import (
	"reflect"
	"testing"

	"causeway/config"
	"causeway/control/health"
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
