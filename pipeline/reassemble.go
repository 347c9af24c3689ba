package pipeline

import (
	"encoding/binary"

	"causeway/pipeline/reassembly"
	"causeway/pipeline/wire"
	"causeway/xsk"
)

// Fragments addressed to an endpoint are put together before anything else is decided about them: a datagram goes on
// whole or not at all. All fragments of one go to the worker that its addresses and identification choose.

// maxReassembled is the longest datagram, without its IP header, that fits the frame of its first fragment, whatever
// link header and IP options came before.
const maxReassembled = xsk.FrameSize - xsk.Headroom - ethLen - wire.VLANLen - wire.IPv4MaxLen

// newReassembler bounds what a worker holds, so that fragments which never become whole leave it the frames that it
// lives on: an eighth of its part of the UMEM.
func newReassembler(framesPerPart int) *reassembly.Table {
	frames := min(framesPerPart/8, 2048)
	return reassembly.New(reassembly.Config{
		MaxDatagrams: frames, MaxFragments: 16, MaxFrames: frames, MaxBytes: maxReassembled, Timeout: fragmentTimeout,
	})
}

var fragmentReasons = [reassembly.VerdictCount]Reason{
	reassembly.Duplicate: FragmentDuplicate,
	reassembly.Overlap:   FragmentOverlap,
	reassembly.BadEnd:    FragmentEnd,
	reassembly.TooMany:   FragmentTooMany,
	reassembly.TooBig:    FragmentTooBig,
	reassembly.BadLength: FragmentEnd, // package wire has checked lengths, so this does not come
}

// collect takes a fragment to an endpoint, whose header has been checked.
func (w *worker) collect(p *packet) {
	key, f := w.fragmentOf(p)
	w.sampled(p, noTunnel, Delivered)
	w.noteHeld(p)
	p.sample = 0               // that of the datagram, if this fragment completes it, is another
	if f.Off == 0 && !f.More { // an atomic fragment has nothing to do with any other (RFC 6946 4)
		w.joined.Pieces = append(w.joined.Pieces[:0], f)
		w.assemble(w.joined.Pieces, p)
		return
	}
	workers := len(w.engine.workers)
	to := int(hash6(words6(key.Src), words6(key.Dst), key.ID, 0)>>32) % workers
	if to != w.id {
		w.handTo(to, handFragment, p)
		return
	}
	w.join(p)
}

// fragmentOf reads the place of a fragment; Start is where its IP header begins.
func (w *worker) fragmentOf(p *packet) (reassembly.Key, reassembly.Fragment) {
	ip := w.bytes(p)
	f := reassembly.Fragment{Frame: p.chunk, Start: uint32(p.l3)}
	var key reassembly.Key
	if p.flags&pktV6 != 0 {
		chain, _ := wire.WalkIPv6(ip) // was checked when the packet was parsed
		key = reassembly.Key{Src: [16]byte(ip[8:24]), Dst: [16]byte(ip[24:40]), ID: chain.FragID, V6: true}
		f.Off, f.More, f.Len = chain.FragOff, chain.FragMore, len(ip)-chain.FragHdr-wire.IPv6FragmentLen
		return key, f
	}
	copy(key.Src[:], ip[12:16])
	copy(key.Dst[:], ip[16:20])
	id, off, more, _ := wire.IPv4Fragment(ip)
	key.ID, key.Proto = uint32(id), ip[wire.IPv4OffProto]
	f.Off, f.More, f.Len = off, more, len(ip)-int(ip[0]&15)*4
	return key, f
}

// join gives a fragment to the reassembler. A datagram that it completes waits in w.whole for finishWhole.
func (w *worker) join(p *packet) {
	key, f := w.fragmentOf(p)
	out := &w.joined
	verdict := w.fragments.Add(w.now, key, f, out)
	w.dropFrames(out.Evicted, FragmentTableFull)
	if verdict >= reassembly.Duplicate {
		w.noteReason(p, fragmentReasons[verdict])
		w.dropFrames(out.Dropped, fragmentReasons[verdict])
	}
	if verdict == reassembly.Complete {
		w.assemble(out.Pieces, p)
	}
	w.count.held.set(uint64(w.fragments.Held()))
}

// assemble copies the pieces into the frame of the first, which gets a header without traces of fragmentation, and
// frees the others.
func (w *worker) assemble(pieces []reassembly.Fragment, last *packet) {
	header, ecn := w.dataAt(pieces[0], last.flags)
	size := header
	for _, piece := range pieces {
		size += piece.Len
	}
	if size > xsk.FrameSize { // IPv6 headers may be longer than maxReassembled allows for
		for _, piece := range pieces {
			w.countLost(FragmentTooBig)
			w.release(piece.Frame)
		}
		w.noteReason(last, FragmentTooBig)
		return
	}
	p := &w.whole.packets[w.whole.n]
	*p = packet{chunk: pieces[0].Frame, l3: uint16(pieces[0].Start), tunnel: noTunnel, port: last.port, flags: last.flags & (pktV6 | watched), capture: last.capture}
	w.noteJoined(p, len(pieces))
	f := w.frame(p.chunk)
	end := header + pieces[0].Len
	for _, piece := range pieces[1:] {
		data, e := w.dataAt(piece, p.flags)
		end += copy(f[end:], w.frame(piece.Frame)[data:data+piece.Len])
		if e == ecnCE {
			ecn = e // RFC 3168 5.3: congestion that one fragment met is not forgotten
		}
		w.release(piece.Frame)
	}
	w.count.joined.add(uint64(len(pieces) - 1))
	p.end = uint16(end)
	if p.flags&pktV6 != 0 {
		p.l3 += wire.IPv6FragmentLen
		unfragment6(f[p.l3-wire.IPv6FragmentLen:p.end], ecn)
	} else {
		unfragment4(f[p.l3:p.end], ecn)
	}
	w.whole.n++
}

// dataAt returns where the data of a fragment begins in its frame, and its ECN codepoint.
func (w *worker) dataAt(piece reassembly.Fragment, flags uint16) (at int, ecn uint8) {
	ip := w.frame(piece.Frame)[piece.Start:]
	if flags&pktV6 == 0 {
		return int(piece.Start) + int(ip[0]&15)*4, ip[1] & 3
	}
	chain, _ := wire.WalkIPv6(ip)
	return int(piece.Start) + chain.FragHdr + wire.IPv6FragmentLen, ip[1] >> 4 & 3
}

// unfragment4 makes the header of ip, the first fragment with all data behind it, that of the whole datagram.
func unfragment4(ip []byte, ecn uint8) {
	hlen := int(ip[0]&15) * 4
	ip[wire.IPv4OffTOS] = ip[wire.IPv4OffTOS]&^3 | ecn
	binary.BigEndian.PutUint16(ip[wire.IPv4OffTotal:], uint16(len(ip)))
	ip[wire.IPv4OffFrag], ip[wire.IPv4OffFrag+1] = 0, 0
	ip[wire.IPv4OffChecksum], ip[wire.IPv4OffChecksum+1] = 0, 0
	binary.BigEndian.PutUint16(ip[wire.IPv4OffChecksum:], wire.Checksum(ip[:hlen]))
}

// unfragment6 takes the fragment header out of ip: what stands before it moves up by its length (RFC 8200 4.5).
func unfragment6(ip []byte, ecn uint8) {
	chain, _ := wire.WalkIPv6(ip)
	next := ip[chain.FragHdr]
	copy(ip[wire.IPv6FragmentLen:], ip[:chain.FragHdr])
	ip = ip[wire.IPv6FragmentLen:]
	ip[chain.UnfragNext] = next
	ip[1] = ip[1]&^0x30 | ecn<<4
	binary.BigEndian.PutUint16(ip[wire.IPv6OffPayload:], uint16(len(ip)-ip6Len))
}

// finishWhole takes the datagrams that are complete through the pipeline like packets that came whole.
func (w *worker) finishWhole(t *Tables) {
	b := &w.whole
	if b.n == 0 {
		return
	}
	b.reset()
	for i := range b.n {
		p := &b.packets[i]
		if p.flags&pktV6 != 0 {
			w.parseIPv6(t, b, i, w.bytes(p))
		} else {
			w.parseIPv4(t, b, i, w.bytes(p))
		}
	}
	w.decap(t, b)
	w.route(t, b)
	w.forward(t, b)
	w.sendOriginated(t)
	b.n = 0
}

// expire gives up datagrams whose fragments did not come in time.
func (w *worker) expire() {
	if w.fragments.Held() == 0 {
		return
	}
	w.fragments.Expire(w.now, w.dropTimeout)
	w.count.held.set(uint64(w.fragments.Held()))
}

// giveUpFragments drops all that is held.
func (w *worker) giveUpFragments() {
	w.fragments.Drain(w.dropTimeout)
	w.count.held.set(0)
}

func (w *worker) dropFrames(chunks []uint64, r Reason) {
	for _, c := range chunks {
		w.countLost(r)
		w.release(c)
	}
}
