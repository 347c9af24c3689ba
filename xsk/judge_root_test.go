package xsk

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/asavie/xdp"
	"github.com/vishvananda/netlink"
)

// TestRootJudge has someone else's AF_XDP implementation at both far ends: what
// github.com/asavie/xdp sends from a0 must reach, through our two ports, what
// github.com/asavie/xdp receives on b0, whole, once and in order.
func TestRootJudge(t *testing.T) {
	r := newRig(t, rigConfig{queuesA: 1, queuesB: 1, workers: 1})
	from, to := r.left.judge(t, "a0"), r.right.judge(t, "b0")

	// A batch above 32 would stay on its TX ring: it does not repeat on EAGAIN. What is on its way must fit its fill ring of
	// 256, which is not filled while this thread waits for its core.
	const batch, window, total = 32, 96, 32 * 100
	sent, next, quiet := uint32(0), uint32(0), 0
	for next < total && quiet < 200 {
		if sent < total && sent-next < window {
			sent += from.send(sent, batch)
		}
		got := to.receive(t, &next)
		if got == 0 {
			quiet++
			time.Sleep(time.Millisecond)
		} else {
			quiet = 0
		}
	}
	if sent != total || next != total {
		t.Errorf("%d sent, %d of %d received", sent, next, total)
	}
}

// judge is one foreign socket.
type judge struct{ *xdp.Socket }

func (ns *namespace) judge(t *testing.T, ifname string) judge {
	t.Helper()
	var s *xdp.Socket
	var p *xdp.Program
	var nl netlink.Link
	var err error
	ns.do(func() {
		if nl, err = netlink.LinkByName(ifname); err != nil {
			return
		}
		index := nl.Attrs().Index
		if p, err = xdp.NewProgram(1); err != nil {
			return
		}
		if err = p.Attach(index); err != nil {
			return
		}
		if s, err = xdp.NewSocket(index, 0, &xdp.SocketOptions{
			NumFrames: 512, FrameSize: FrameSize, FillRingNumDescs: 256,
			CompletionRingNumDescs: 64, RxRingNumDescs: 256, TxRingNumDescs: 64,
		}); err == nil {
			err = p.Register(0, s.FD())
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ns.do(func() { _ = p.Detach(nl.Attrs().Index) })
		_ = s.Close()
		_ = p.Close()
	})
	s.Fill(s.GetDescs(s.NumFreeFillSlots()))
	return judge{s}
}

// send sends up to n numbered packets and returns how many.
func (j judge) send(first uint32, n int) uint32 {
	j.Complete(j.NumCompleted())
	descs := j.GetDescs(min(n, j.NumFreeTxSlots()))
	for i := range descs {
		descs[i].Len = judgeLen(first + uint32(i))
		judgePacket(j.GetFrame(descs[i]), first+uint32(i))
	}
	return uint32(j.Transmit(descs))
}

// receive checks the packets that have arrived and returns how many.
func (j judge) receive(t *testing.T, next *uint32) int {
	t.Helper()
	if _, _, err := j.Poll(0); err != nil {
		t.Fatal(err)
	}
	n := j.NumReceived()
	descs := j.Receive(n)
	ours := 0
	want := make([]byte, MaxPacket)
	for _, d := range descs {
		// Looked at before Fill, which gives the frame back.
		got := j.GetFrame(d)
		if len(got) < 18 || binary.BigEndian.Uint16(got[12:]) != 0x88b5 {
			continue // the stacks' own packets
		}
		w := want[:judgeLen(*next)]
		judgePacket(w, *next)
		if string(got) != string(w) {
			t.Fatalf("packet %d arrived as number %d, %d bytes instead of %d",
				*next, binary.BigEndian.Uint32(got[14:]), len(got), len(w))
		}
		*next++
		ours++
	}
	j.Fill(j.GetDescs(j.NumFreeFillSlots()))
	return ours
}

// judgeLen runs through all sizes from the smallest to what fits the MTU.
func judgeLen(n uint32) uint32 { return 60 + n*37%(1514-60+1) }

func judgePacket(b []byte, n uint32) {
	for i := range b {
		b[i] = byte(uint32(i)*n + n>>3)
	}
	copy(b, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 3, 0x88, 0xb5})
	binary.BigEndian.PutUint32(b[14:], n)
}
