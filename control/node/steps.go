package node

import (
	"cmp"
	"fmt"
	"net"
	"strings"

	"causeway/control/api"
	"causeway/pipeline"
	"causeway/pipeline/match"
	"causeway/pipeline/wire"
)

// packetOf says in words what the workers noted of a packet.
func (n *Node) packetOf(s *pipeline.Captured) *api.CapturedPacket {
	p := &api.CapturedPacket{Origin: "port", Length: len(s.Frame()), InnerLength: len(s.Inner()), Answered: s.Answered, Verdict: verdictOf(s)}
	switch s.Origin {
	case pipeline.FromHost:
		p.Origin = "host"
	case pipeline.FromControl:
		p.Origin = "control"
	default:
		p.Interface = n.ports[s.Port].Name()
	}
	p.Headers, p.InnerHeaders = match.Of(s.Packet()).String(), match.Of(s.Inner()).String()
	p.FromTunnel, p.FromAccount = n.engine.Names(s.In)
	p.IntoTunnel, p.IntoAccount = n.engine.Names(s.Out)
	if s.Sent {
		p.OutInterface = n.ports[s.OutPort].Name()
	}
	if s.Verdict == pipeline.Dropped {
		d := DropOf(s.Reason, 1)
		p.Drop = &d
	}
	n.steps(p, s)
	return p
}

func verdictOf(s *pipeline.Captured) string {
	if s.Verdict == pipeline.Delivered && s.Held {
		return "held"
	}
	return s.Verdict.String()
}

// steps are the stages that a packet came through, in their order. What it did not come to is not there.
func (n *Node) steps(p *api.CapturedPacket, s *pipeline.Captured) {
	add := func(stage pipeline.Stage, format string, args ...any) {
		p.Steps = append(p.Steps, api.CaptureStep{Stage: string(stage), Decision: fmt.Sprintf(format, args...)})
	}
	add(pipeline.StageParse, "%s", cameWords(p, s))
	if s.HandedOver > 0 {
		add(pipeline.StageParse, "handed over to worker %d", s.HandedTo-1)
	}
	switch {
	case s.Held:
		add(pipeline.StageReassembly, "a fragment: it waits for the others of its datagram")
	case s.Joined > 1:
		add(pipeline.StageReassembly, "the last of %d fragments: the datagram is whole", s.Joined)
	}
	switch {
	case s.FromNode:
		add(pipeline.StageDecap, "another node has forwarded it for its tunnel: %s, %d bytes", p.InnerHeaders, p.InnerLength)
	case s.Decapsulated:
		add(pipeline.StageDecap, "out of %s: %s; inside %s, %d bytes", tunnelWords(p.FromTunnel, p.FromAccount), viaWords(s), cmp.Or(p.InnerHeaders, "no IP packet"), p.InnerLength)
	}
	if s.Admitted {
		add(pipeline.StageInner, "its headers, source and destination are allowed")
	}
	if s.Routed {
		add(pipeline.StageRoute, "%s: %s", tableWords(n.engine.AccountOf(s.Table)), n.leafWords(s.Leaf, s.Member))
	}
	if s.ClampSeen {
		add("clamp", "a SYN: its MSS %s %d", map[bool]string{true: "is lowered to", false: "is not above"}[s.Clamped], s.ClampTo)
	}
	if s.Sized {
		add(pipeline.StageSize, "%d bytes; %d may go there", s.Size, s.Limit)
	}
	if s.Pieces > 0 {
		add(pipeline.StageSize, "cut into %d fragments", s.Pieces)
	}
	if s.Encapsulated {
		add(pipeline.StageEncap, "%s", encapWords(p, s))
	}
	if s.Sent {
		add(pipeline.StageTransmit, "by %s, to %s, %d bytes%s", p.OutInterface, net.HardwareAddr(s.NextHop[:]), s.FrameSize, vlanWords(s.VLAN))
	}
	n.lastStep(p, s, add)
}

// lastStep is what became of a packet that was not forwarded.
func (n *Node) lastStep(p *api.CapturedPacket, s *pipeline.Captured, add func(pipeline.Stage, string, ...any)) {
	switch {
	case p.Drop != nil:
		add(s.Reason.Info().Stage, "%s%s", DropWords(p.Drop), map[bool]string{true: "; an ICMP error was sent to its source"}[s.Answered])
	case p.Verdict == "delivered" && s.Answered:
		add(pipeline.StageRoute, "for an address of ours: answered")
	case p.Verdict == "delivered":
		add(pipeline.StageInner, "a keepalive: answered")
	case p.Verdict == "punted" && s.Probe:
		add(pipeline.StagePunt, "given to the control side: the answer to a probe, or BFD")
	case p.Verdict == "punted":
		add(pipeline.StagePunt, "given to the host")
	}
}

// DropWords says why a packet was dropped.
func DropWords(d *api.Drop) string {
	s := fmt.Sprintf("dropped: %s (%s", d.Reason, d.Sentence)
	if d.RFC != "" {
		s += "; " + d.RFC
	}
	return s + ")"
}

func cameWords(p *api.CapturedPacket, s *pipeline.Captured) string {
	what := ""
	switch p.Origin {
	case "host":
		what = "sent by the host"
	case "control":
		what = map[bool]string{true: "a probe of the control side's", false: "sent by the host into the device of a tunnel"}[s.Probe]
	default:
		what = "came by " + p.Interface
	}
	return fmt.Sprintf("%s: %s, %d bytes", what, cmp.Or(p.Headers, "no IP packet"), p.Length)
}

func viaWords(s *pipeline.Captured) string {
	switch s.Via {
	case wire.ProtoESP:
		return fmt.Sprintf("ESP, SPI %#08x", s.Key)
	case wire.ProtoUDP:
		return fmt.Sprintf("ESP in UDP, SPI %#08x", s.Key)
	}
	if s.Keyed {
		return fmt.Sprintf("GRE, key %d", s.Key)
	}
	return "GRE"
}

func encapWords(p *api.CapturedPacket, s *pipeline.Captured) string {
	how := "GRE"
	if s.SPI != 0 {
		how = fmt.Sprintf("ESP, SPI %#08x", s.SPI)
	}
	where := "into " + tunnelWords(p.IntoTunnel, p.IntoAccount)
	if s.ToNode {
		where = "to the node that encrypts for " + tunnelWords(p.IntoTunnel, p.IntoAccount)
	}
	return fmt.Sprintf("%s: %s, %d bytes", where, how, s.OuterSize)
}

func tunnelWords(tunnel, account string) string {
	if tunnel == "" {
		return "a tunnel that is there no more"
	}
	return fmt.Sprintf("tunnel %s (account %s)", tunnel, account)
}

func tableWords(account string) string {
	if account == "" {
		return "the Internet's table"
	}
	return "the table of account " + account
}

func vlanWords(vlan int) string {
	if vlan == 0 {
		return ""
	}
	return fmt.Sprintf(", VLAN %d", vlan&0xfff)
}

// leafWords says where a route leads; member is the one of a group that was chosen.
func (n *Node) leafWords(l, member pipeline.Leaf) string {
	switch k := pipeline.LeafKind(l); k {
	case pipeline.KindNone:
		return "no route"
	case pipeline.KindGroup:
		if member == 0 {
			return "a group of equal routes"
		}
		return "a group of equal routes, of which this flow has " + n.leafWords(member, 0)
	case pipeline.KindTunnel:
		return "into " + tunnelWords(n.engine.Names(int32(pipeline.LeafIndex(l))))
	case pipeline.KindTunnelAddress:
		return "our interface address in " + tunnelWords(n.engine.Names(int32(pipeline.LeafIndex(l))))
	case pipeline.KindNeighbour:
		var hops []string
		for _, h := range n.routes.Hops(l) {
			hops = append(hops, fmt.Sprintf("via %v dev %s", h.Addr, h.Interface))
		}
		return cmp.Or(strings.Join(hops, ", "), "a neighbour that is there no more")
	case pipeline.KindKernel:
		return "the host"
	case pipeline.KindGlean:
		return "on the link itself; its address there is not known yet"
	default:
		return "a route of kind " + k.String()
	}
}
