package node

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"causeway/pipeline"
)

// TestStraysAreTold: with SPI and source, and not more often than once a minute.
func TestStraysAreTold(t *testing.T) {
	var log strings.Builder
	s := strays{log: slog.New(slog.NewTextHandler(&log, nil))}
	start := time.Now()
	src := netip.MustParseAddr("198.51.100.9")
	for second := range 130 {
		p := pipeline.Stray{Reason: pipeline.ESPNoSA, SPI: 0xbad, Src: src}
		if second >= 120 {
			p = pipeline.Stray{Reason: pipeline.ESPSource, SPI: 0x1001, Src: src, Tunnel: "cust-a"}
		}
		s.tell(p, start.Add(time.Duration(second)*time.Second))
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "spi=0xbad source=198.51.100.9") || !strings.Contains(lines[2], "spi=0x1001 source=198.51.100.9 tunnel=cust-a") {
		t.Errorf("%d lines: %s", len(lines), &log)
	}
}
