package pipeline

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"testing"

	"causeway/pipeline/fib"
)

// spreadTunnels are as many tunnels of one account, each to an end of its own.
func spreadTunnels(n int) (list []TunnelSpec) {
	for i := range n {
		list = append(list, tunnelSpec(fmt.Sprintf("t%d", i), func(s *TunnelSpec) {
			s.CustomerEndpoint = netip.AddrFrom4([4]byte{198, 51, 100, byte(100 + i)})
			s.Interface4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, 7, byte(2 * i)}), 31)
		}))
	}
	return list
}

// Of 10,000 flows each tunnel of a group carries its share by weight, less or more by no more than 2 % of all; when one of ten goes only its
// flows move, and when it comes back as many.
func TestSharesOfFlows(t *testing.T) {
	const flows = 10_000
	for _, weights := range [][]uint32{{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, {256, 1, 1, 1, 64, 64, 64, 64, 128, 128}} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			specs := spreadTunnels(len(weights))
			b := newBed(t, 1, specs...)
			var members []fib.Member
			byEnd, total := map[uint32]int{}, uint32(0)
			for i, s := range specs {
				id, _ := b.engine.TunnelID(s.Name)
				members = append(members, fib.Member{Value: MakeLeaf(KindTunnel, id), Weight: weights[i]})
				byEnd[word4(s.CustomerEndpoint)] = i
				total += weights[i]
			}
			g := fib.NewGroup(members)
			b.engine.fwd.SetGroup(1, g)
			b.route("", netip.MustParsePrefix("203.0.113.0/24"), MakeLeaf(KindGroup, 1))
			carried := func() (by [flows]int) {
				for i := range by {
					from := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
					frame := framed(udp(t, from, netip.AddrFrom4([4]byte{203, 0, 113, byte(i >> 8)}), 20))
					out := b.send(frame)
					if len(out) != 1 {
						t.Fatalf("flow %d: %d frames; %v", i, len(out), b.dropped())
					}
					by[i] = byEnd[binary.BigEndian.Uint32(out[0][ethLen+16:])]
				}
				return by
			}
			check := func(what string, by [flows]int, gone int) {
				t.Helper()
				n := make([]int, len(weights))
				for _, i := range by {
					n[i]++
				}
				sum := total
				if gone >= 0 {
					sum -= weights[gone]
				}
				for i, w := range weights {
					want := float64(w) / float64(sum)
					if i == gone {
						want = 0
					}
					if share := float64(n[i]) / flows; math.Abs(share-want) > 0.02 || i == gone && n[i] > 0 {
						t.Errorf("%s: tunnel %d has %.3f of the flows, want %.3f", what, i, share, want)
					}
				}
			}
			before := carried()
			check("all", before, -1)
			const gone = 7
			g.Update(append(members[:gone:gone], members[gone+1:]...))
			without := carried()
			check("one has gone", without, gone)
			for i := range before {
				if before[i] != gone && before[i] != without[i] {
					t.Fatalf("flow %d was tunnel %d's and is %d's", i, before[i], without[i])
				}
			}
			g.Update(members)
			again := carried()
			check("it is back", again, -1)
			for i := range before {
				if again[i] != gone && again[i] != without[i] {
					t.Fatalf("flow %d was tunnel %d's and is %d's", i, without[i], again[i])
				}
			}
		})
	}
}
