package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Header lengths and protocol numbers of what the generator builds.
const (
	etherLen  = 14
	vlanLen   = 4
	ipv4Len   = 20
	ipv6Len   = 40
	greLen    = 4
	greKeyLen = 4
	udpLen    = 8
	tcpLen    = 20
	mssOptLen = 4

	typeIPv4 = 0x0800
	typeIPv6 = 0x86dd
	typeVLAN = 0x8100

	greHasKey = 0x2000 // RFC 2890 section 2
	ttl       = 64
)

// A frameSpec says what every generated frame looks like.
type frameSpec struct {
	SrcMAC, DstMAC net.HardwareAddr
	VLAN           int // 802.1Q identifier, 0 = untagged
	GRE            *greSpec
	Src, Dst       netip.Addr // of the innermost packet; Src is that of flow 0
	SrcPort        int        // of flow 0
	DstPort        int
	SYN            bool // TCP SYN in place of UDP
	MSS            int  // MSS option of the SYN in bytes, 0 = none
	Flows          int
	FlowPorts      int // source ports per source address
	Mix            mix
	Probe          probeMode
}

// A greSpec is the encapsulation around the generated packet.
type greSpec struct {
	Src, Dst netip.Addr
	Key      uint32
	HasKey   bool
}

type probeMode int

const (
	probeAuto probeMode = iota // where every frame has room and is no SYN
	probeOn
	probeOff
)

// A plan is a frameSpec worked out: one complete frame per size, and where the fields stand that differ from packet to
// packet. An offset is from the start of the frame; 0 means that there is no such field.
type plan struct {
	spec  frameSpec
	order []uint8
	forms []form

	srcOff   int // low 32 bits of the source address
	ipSumOff int // checksum of the innermost IPv4 header
	portOff  int // source port
	l4SumOff int // TCP or UDP checksum
	isnOff   int // TCP sequence number
	probeOff int
	headLen  int // bytes of headers, the probe's magic included

	src  uint32 // low 32 bits of the first source address
	port uint16
}

// A form is the frame of one size, varying fields zero, with the partial checksums over it.
type form struct {
	image []byte
	ipSum uint32
	l4Sum uint32
}

// newPlan builds the frames. Its errors are mistakes of the command line.
func newPlan(s frameSpec) (*plan, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	p := &plan{spec: s, order: s.Mix.order, port: uint16(s.SrcPort)}
	src := s.Src.AsSlice()
	p.src = binary.BigEndian.Uint32(src[len(src)-4:])
	if last := uint64(p.src) + uint64((s.Flows-1)/s.FlowPorts); last > 1<<32-1 {
		return nil, fmt.Errorf("%d flows from %s leave the address space: lower --flows, raise --flow-ports, or start at another --src", s.Flows, s.Src)
	}
	p.locate()
	for _, size := range s.Mix.sizes {
		f, err := p.build(size)
		if err != nil {
			return nil, err
		}
		p.forms = append(p.forms, f)
	}
	return p, nil
}

func (s *frameSpec) check() error {
	switch {
	case s.Src.Is4() != s.Dst.Is4():
		return fmt.Errorf("source %s and destination %s are of different families", s.Src, s.Dst)
	case s.GRE != nil && s.GRE.Src.Is4() != s.GRE.Dst.Is4():
		return fmt.Errorf("GRE source %s and destination %s are of different families", s.GRE.Src, s.GRE.Dst)
	case s.VLAN < 0 || s.VLAN > 4094:
		return fmt.Errorf("VLAN %d is not allowed: 1 to 4094, or 0 for no tag", s.VLAN)
	case s.Flows < 1 || s.Flows > 1<<24:
		return fmt.Errorf("%d flows are not allowed: 1 to %d", s.Flows, 1<<24)
	case s.SrcPort < 0 || s.SrcPort > 65535 || s.DstPort < 0 || s.DstPort > 65535:
		return fmt.Errorf("ports %d -> %d are not allowed: 0 to 65535", s.SrcPort, s.DstPort)
	case s.FlowPorts < 1 || s.SrcPort+min(s.FlowPorts, s.Flows)-1 > 65535:
		return fmt.Errorf("%d source ports from %d on are not allowed: the last one must be at most 65535", s.FlowPorts, s.SrcPort)
	case s.MSS < 0 || s.MSS > 65535:
		return fmt.Errorf("MSS %d is not allowed: 1 to 65535, or 0 for no option", s.MSS)
	case s.MSS > 0 && !s.SYN:
		return fmt.Errorf("--mss %d is an option of a TCP SYN: give --tcp-syn too", s.MSS)
	}
	return nil
}

// locate sets the offsets, in the order of the headers.
func (p *plan) locate() {
	at := p.l3()
	if p.spec.Src.Is4() {
		p.ipSumOff = at + 10
		p.srcOff = at + 12
	} else {
		p.srcOff = at + 8 + 12
	}
	at += ipLen(p.spec.Src)
	p.portOff = at
	if p.spec.SYN {
		p.isnOff, p.l4SumOff = at+4, at+16
	} else {
		p.l4SumOff = at + 6
	}
	at += p.l4Len()
	p.headLen = at
	if p.wantsProbe() {
		p.probeOff = at
		p.headLen = at + probeSeq
	}
}

// wantsProbe decides probeAuto: a SYN usually has no payload, and without --size every frame is made large enough.
func (p *plan) wantsProbe() bool {
	if p.spec.Probe != probeAuto {
		return p.spec.Probe == probeOn
	}
	if p.spec.SYN {
		return false
	}
	sizes := p.spec.Mix.sizes
	return len(sizes) > 1 || sizes[0] == 0 || sizes[0] >= p.minSize(probeLen)
}

// overhead is what VLAN tag and encapsulation add to a frame.
func (p *plan) overhead() int {
	n := p.tagLen()
	if g := p.spec.GRE; g != nil {
		n += ipLen(g.Src) + g.len()
	}
	return n
}

func (g *greSpec) len() int {
	if g.HasKey {
		return greLen + greKeyLen
	}
	return greLen
}

// l3 is where the innermost IP header begins.
func (p *plan) l3() int { return etherLen + p.overhead() }

func (p *plan) l4Len() int {
	switch {
	case !p.spec.SYN:
		return udpLen
	case p.spec.MSS != 0:
		return tcpLen + mssOptLen
	}
	return tcpLen
}

// minSize is the smallest frame size (with FCS, without overhead) that holds a payload of n bytes.
func (p *plan) minSize(n int) int {
	return max(minSize, etherLen+ipLen(p.spec.Src)+p.l4Len()+n+fcsLen)
}

// build makes the frame of one size, 0 meaning the smallest that holds what is asked for. In a mix a size that cannot
// hold the headers and the probe is raised to the smallest that can, as IPv6 makes necessary for 64; alone it is an
// error.
func (p *plan) build(size int) (form, error) {
	payload, what := 0, "these headers"
	if p.probeOff != 0 {
		payload, what = probeLen, "these headers and the probe"
	}
	least := p.minSize(payload)
	if size != 0 && size < least {
		if len(p.spec.Mix.sizes) == 1 {
			return form{}, fmt.Errorf("size %d is too small for %s: at least %d", size, what, least)
		}
		size = least
	}
	end := size - fcsLen + p.overhead() // of the IP packet
	if size == 0 {
		end = p.l3() + ipLen(p.spec.Src) + p.l4Len() + payload
	}
	frame := max(end, minSize-fcsLen) // Ethernet pads behind the IP packet
	if frame > maxFrameLen {
		return form{}, fmt.Errorf("size %d with %d bytes of encapsulation makes a frame of %d bytes: at most %d fit", size, p.overhead(), frame, maxFrameLen)
	}
	b := make([]byte, frame)
	p.putLink(b)
	p.putOuter(b, end)
	p.putInner(b, end)
	return p.finishForm(b, end), nil
}

func (p *plan) putLink(b []byte) {
	copy(b, p.spec.DstMAC)
	copy(b[6:], p.spec.SrcMAC)
	at := 12
	if p.spec.VLAN != 0 {
		binary.BigEndian.PutUint16(b[at:], typeVLAN)
		binary.BigEndian.PutUint16(b[at+2:], uint16(p.spec.VLAN))
		at += vlanLen
	}
	first := p.spec.Src
	if p.spec.GRE != nil {
		first = p.spec.GRE.Src
	}
	binary.BigEndian.PutUint16(b[at:], etherType(first))
}

// putOuter writes the delivery header and GRE (RFC 2784 section 2, RFC 2890 section 2).
func (p *plan) putOuter(b []byte, end int) {
	g := p.spec.GRE
	if g == nil {
		return
	}
	at := p.l3() - g.len() - ipLen(g.Src)
	putIP(b[at:end], g.Src, g.Dst, unix.IPPROTO_GRE)
	if g.Src.Is4() {
		binary.BigEndian.PutUint16(b[at+10:], finish(sumBytes(b[at:at+ipv4Len], 0)))
	}
	at += ipLen(g.Src)
	binary.BigEndian.PutUint16(b[at+2:], etherType(p.spec.Src))
	if g.HasKey {
		binary.BigEndian.PutUint16(b[at:], greHasKey)
		binary.BigEndian.PutUint32(b[at+4:], g.Key)
	}
}

// putInner writes the generated packet with its varying fields zero.
func (p *plan) putInner(b []byte, end int) {
	at := p.l3()
	putIP(b[at:end], p.spec.Src, p.spec.Dst, p.proto())
	clear(b[p.srcOff : p.srcOff+4])
	l4 := b[at+ipLen(p.spec.Src) : end]
	binary.BigEndian.PutUint16(l4[2:], uint16(p.spec.DstPort))
	if p.spec.SYN {
		putSYN(l4, p.spec.MSS)
	} else {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	}
	if p.probeOff != 0 {
		binary.BigEndian.PutUint32(b[p.probeOff:], probeMagic)
	}
}

func putSYN(b []byte, mss int) {
	words := tcpLen / 4
	if mss != 0 {
		b[tcpLen], b[tcpLen+1] = 2, mssOptLen // RFC 9293 section 3.2: maximum segment size
		binary.BigEndian.PutUint16(b[tcpLen+2:], uint16(mss))
		words += mssOptLen / 4
	}
	b[12] = uint8(words) << 4
	b[13] = 0x02 // SYN
	binary.BigEndian.PutUint16(b[14:], 65535)
}

// finishForm sums what does not change.
func (p *plan) finishForm(b []byte, end int) form {
	at := p.l3()
	l4 := b[at+ipLen(p.spec.Src) : end]
	f := form{image: b}
	if p.spec.Src.Is4() {
		f.ipSum = sumBytes(b[at:at+ipv4Len], 0)
		f.l4Sum = sumBytes(b[at+12:at+20], 0)
	} else {
		f.l4Sum = sumBytes(b[at+8:at+40], 0)
	}
	f.l4Sum = sumBytes(l4, f.l4Sum+uint32(len(l4))+uint32(p.proto()))
	f.l4Sum = f.l4Sum>>16 + f.l4Sum&0xffff // leaves room for the fields added later
	return f
}

func (p *plan) proto() uint8 {
	if p.spec.SYN {
		return unix.IPPROTO_TCP
	}
	return unix.IPPROTO_UDP
}

// putIP writes an IP header for the whole of b, the IPv4 checksum zero. DF is set and the identification zero, as
// RFC 6864 section 4.1 permits for a packet that is not fragmented.
func putIP(b []byte, src, dst netip.Addr, proto uint8) {
	if src.Is4() {
		b[0] = 0x45
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		b[6] = 0x40
		b[8], b[9] = ttl, proto
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		return
	}
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-ipv6Len))
	b[6], b[7] = proto, ttl
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
}

func ipLen(a netip.Addr) int {
	if a.Is4() {
		return ipv4Len
	}
	return ipv6Len
}

func etherType(a netip.Addr) uint16 {
	if a.Is4() {
		return typeIPv4
	}
	return typeIPv6
}

// form tells which form the packet of a sequence number has.
func (p *plan) form(seq uint64) int { return int(p.order[seq%uint64(len(p.order))]) }

// stamp writes the varying fields of packet seq into frame, which holds the image of its form; now is in nanoseconds
// of CLOCK_MONOTONIC. The program in bpf/live.bpf.c does the same.
func (p *plan) stamp(frame []byte, seq, now uint64) {
	f := &p.forms[p.form(seq)]
	flow := uint32(seq % uint64(p.spec.Flows))
	src := p.src + flow/uint32(p.spec.FlowPorts)
	port := p.port + uint16(flow%uint32(p.spec.FlowPorts))

	binary.BigEndian.PutUint32(frame[p.srcOff:], src)
	binary.BigEndian.PutUint16(frame[p.portOff:], port)
	sum := f.l4Sum + sum32(src) + uint32(port)
	if p.ipSumOff != 0 {
		binary.BigEndian.PutUint16(frame[p.ipSumOff:], finish(f.ipSum+sum32(src)))
	}
	if p.isnOff != 0 {
		binary.BigEndian.PutUint32(frame[p.isnOff:], uint32(seq))
		sum += sum32(uint32(seq))
	}
	if p.probeOff != 0 {
		putProbe(frame[p.probeOff:], seq, now)
		sum += probeSum(seq, now)
	}
	check := finish(sum)
	if check == 0 && !p.spec.SYN {
		check = 0xffff // RFC 768: a computed zero is sent as all ones
	}
	binary.BigEndian.PutUint16(frame[p.l4SumOff:], check)
}

// longest is the length of the longest frame, without FCS.
func (p *plan) longest() int {
	n := 0
	for _, f := range p.forms {
		n = max(n, len(f.image))
	}
	return n
}

// sent says what the packets 0 to n-1 were.
func (p *plan) sent(n uint64) (sizes []sizeCount, bytes uint64) {
	for k, f := range p.forms {
		inRound, inRest := uint64(0), uint64(0)
		for i, o := range p.order {
			if int(o) == k {
				inRound++
				if uint64(i) < n%uint64(len(p.order)) {
					inRest++
				}
			}
		}
		c := n/uint64(len(p.order))*inRound + inRest
		sizes = append(sizes, sizeCount{Frame: len(f.image), Packets: c})
		bytes += c * uint64(len(f.image))
	}
	return sizes, bytes
}

// tagLen is what the VLAN tag adds to a frame beyond the interface's MTU.
func (p *plan) tagLen() int {
	if p.spec.VLAN != 0 {
		return vlanLen
	}
	return 0
}
