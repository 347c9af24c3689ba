package node

import (
	"testing"

	"causeway/pipeline"
	"causeway/xsk"
)

// What the kernel says of a link is kept for `show ports`; the workers send nothing longer than a frame.
func TestLinksFitFrames(t *testing.T) {
	links := []pipeline.LinkSpec{{Port: 0, MTU: 9000}, {Port: 1, MTU: 1500}, {Port: 0, VLAN: 7, MTU: 1400}}
	for i, want := range []int{xsk.MaxMTU, 1500, 1400} {
		if got := inFrames(links)[i].MTU; got != want {
			t.Errorf("link %d: the workers get an mtu of %d, want %d", i, got, want)
		}
	}
	for _, c := range []struct{ port, want int }{{0, 9000}, {1, 1500}, {2, 1234}} {
		if got := portMTU(links, c.port, 1234); got != c.want {
			t.Errorf("port %d: shown with %d, want %d", c.port, got, c.want)
		}
	}
}
