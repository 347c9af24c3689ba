package config

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestHealthCheck: what is left out has the published thresholds.
func TestHealthCheck(t *testing.T) {
	usual := HealthCheck{Type: HealthReply, Source: netip.MustParseAddr("10.213.0.10"), Target: netip.MustParseAddr("10.213.0.11"), Interval: 5 * time.Second, Retry: 2,
		Loss: 0.001, Over: 5 * time.Minute, Failures: 2, Samples: 3, Within: time.Second, Successes: 3, Clean: 30, Hold: 5 * time.Minute}
	for text, change := range map[string]func(h *HealthCheck){
		"{}":                           func(*HealthCheck) {},
		"{enabled: true, type: reply}": func(*HealthCheck) {},
		"{type: request}":              func(h *HealthCheck) { h.Type = HealthRequest },
		"{direction: bidirectional}":   func(*HealthCheck) {},
		"{direction: unidirectional}": func(h *HealthCheck) {
			h.Direction, h.Source, h.Target = HealthUnidirectional, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
		},
		"{type: request, direction: unidirectional, target: 198.51.100.9}": func(h *HealthCheck) {
			h.Type, h.Direction, h.Source, h.Target = HealthRequest, HealthUnidirectional, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.9")
		},
		"{rate: low}": func(h *HealthCheck) { h.Interval = 10 * time.Second },
		"{rate: mid}": func(*HealthCheck) {},
		"{rate: high, retry: 0, down: {samples: 2}}": func(h *HealthCheck) { h.Interval, h.Retry, h.Samples = time.Second, 0, 2 },
		"{interval: 100ms}":                          func(h *HealthCheck) { h.Interval = 100 * time.Millisecond },
		"{type: request, target: 10.213.0.11}": func(h *HealthCheck) {
			h.Type, h.Target = HealthRequest, netip.MustParseAddr("10.213.0.11")
		},
		"{degraded: {loss: 2.5%, over: 1m, failures: 5}}":  func(h *HealthCheck) { h.Loss, h.Over, h.Failures = 0.025, time.Minute, 5 },
		"{interval: 1s, down: {samples: 5, within: 10s}}":  func(h *HealthCheck) { h.Interval, h.Samples, h.Within = time.Second, 5, 10*time.Second },
		"{recovery: {successes: 1, clean: 10, hold: 30s}}": func(h *HealthCheck) { h.Successes, h.Clean, h.Hold = 1, 10, 30*time.Second },
	} {
		want := usual
		change(&want)
		if got := mustParse(t, field("health_check: "+text)).Tunnels[0].HealthCheck; got == nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
	for _, text := range []string{field("health_check: {enabled: false}"), base} {
		if h := mustParse(t, text).Tunnels[0].HealthCheck; h != nil {
			t.Errorf("%s: %+v", text, h)
		}
	}
	behind := mustParse(t, field("prefixes: [203.0.113.0/24]\n    health_check: {type: request, target: 203.0.113.7}")).Tunnels[0].HealthCheck
	if behind.Target != netip.MustParseAddr("203.0.113.7") {
		t.Errorf("behind the router: %+v", behind)
	}
	six := mustParse(t, field("interface_address6: fd00:213::a/127\n    health_check: {family: ipv6}")).Tunnels[0].HealthCheck
	if six.Source != netip.MustParseAddr("fd00:213::a") || six.Target != netip.MustParseAddr("fd00:213::b") {
		t.Errorf("ipv6: %+v", six)
	}
}

func TestHealthCheckMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"health_check: true": "must be a mapping: write health_check: {type: request}",
		"health_check: {direction: unidirectional, family: ipv4}":                     "is for direction: bidirectional; a unidirectional probe is of the endpoint's family: remove the field",
		"health_check: {direction: unidirectional, target: 198.51.100.9}":             "198.51.100.9 is for type: request; a reply goes to our own address: remove the field, or write type: request",
		"health_check: {direction: unidirectional, type: request, target: fd00::1}":   "fd00::1 is not of the family of the endpoint, 192.0.2.1, from which it is asked: write one that is",
		"health_check: {direction: unidirectional, type: request, target: 192.0.2.1}": "192.0.2.1 is our own endpoint: write an address of the customer's",
		"health_check: {direction: both}":                                             `must be bidirectional or unidirectional, got "both"`,
		"health_check: {type: ping}":                                                  `must be reply or request, got "ping"`,
		"health_check: {rate: fast}":                                                  `must be low, mid or high, got "fast"`,
		"health_check: {rate: low, interval: 1s}":                                     "stands beside rate: there is one of the two; remove it, or rate",
		"health_check: {interval: 1ms}":                                               "1ms is too short: write 100ms at least, since the customer's router answers from its slow path",
		"health_check: {family: ipv6}":                                                "ipv6 needs interface_address6 of the tunnel: write it, or ipv4",
		"health_check: {target: 10.213.0.11}":                                         "10.213.0.11 is for type: request; a reply goes to our own address: remove the field, or write type: request",
		"health_check: {type: request, target: fd00::1}":                              "fd00::1 is not of the family that is probed: write family: ipv6",
		"health_check: {type: request, target: 10.213.0.10}":                          "10.213.0.10 is our own interface address: write an address of the customer's",
		"health_check: {type: request, target: 192.0.2.200}":                          "192.0.2.200 is not in the tunnel's prefixes, nor in the subnet of its interface address: its answers would be dropped as inner_source",
		"health_check: {degraded: {loss: 0.1}}":                                       "must be a share of more than 0% and up to 100%, such as 0.1%, got 0.1",
		"health_check: {degraded: {loss: 101%}}":                                      `must be a share of more than 0% and up to 100%, such as 0.1%, got "101%"`,
		"health_check: {down: {samples: 17}}":                                         "must be a whole number from 1 to 16, got 17",
		"health_check: {rate: high, retry: 0, down: {within: 1s}}":                    "would never find the tunnel down: down.samples of 3, with a retry of 0 and one probe each 1s, take 2s to be sent, and down.within is 1s; write a longer down.within, more retries, or a shorter interval",
		"health_check: {rate: low, degraded: {over: 30s, failures: 4}}":               "would never find the tunnel degraded: in degraded.over of 30s there are 3 probes, one each 10s, and degraded.failures is 4; write fewer, a longer degraded.over, or a shorter interval",
		"health_check: {down: {within: 100ms}}":                                       "would never find the tunnel down: down.samples of 3, with a retry of 2 and one probe each 5s, take 900ms to be sent, and down.within is 100ms; write a longer down.within, more retries, or a shorter interval",
		"health_check: {retry: 11}":                                                   "must be a whole number from 0 to 10, got 11",
	} {
		_, err := Parse("c.yaml", []byte(field(text)))
		if err == nil || !strings.HasSuffix(err.Error(), ": "+want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}
