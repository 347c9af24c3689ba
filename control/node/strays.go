package node

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"causeway/pipeline"
)

// How often is looked for stray ESP packets, and how long nothing is said after one was told of: anybody can send them.
const (
	strayInterval = time.Second
	strayPause    = time.Minute
)

// tellStrays logs now and then an ESP packet that belongs to no association.
func (n *Node) tellStrays(ctx context.Context) {
	tick := time.NewTicker(strayInterval)
	defer tick.Stop()
	s := strays{log: n.log}
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if stray, ok := n.engine.Stray(); ok {
				s.tell(stray, now)
			}
		}
	}
}

// strays is who tells of them.
type strays struct {
	log  *slog.Logger
	last time.Time
}

func (s *strays) tell(p pipeline.Stray, now time.Time) {
	if now.Sub(s.last) < strayPause {
		return
	}
	s.last = now
	spi := slog.String("spi", fmt.Sprintf("%#x", p.SPI))
	if p.Reason == pipeline.ESPSource {
		s.log.Warn("an ESP packet of a tunnel comes from another address than its customer_endpoint, or with UDP where the tunnel has none, or without; more such packets are counted as esp_source",
			spi, "source", p.Src, "tunnel", p.Tunnel)
		return
	}
	s.log.Warn("an ESP packet has an SPI that is no tunnel's spi_in; more such packets are counted as esp_no_sa", spi, "source", p.Src)
}
