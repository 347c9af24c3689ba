package ipfix

import (
	"encoding/binary"
	"time"

	"causeway/analytics/export/ifindex"
)

// Ids of sets (RFC 7011 3.3.2) and of templates.
const (
	templateSet        = 2
	optionsTemplateSet = 3
	minDataSet         = 256

	flow4      = 256
	flow6      = 257
	biflow4    = 258
	biflow6    = 259
	interfaces = 260
	sampling   = 261
)

// reversePEN marks elements that speak of the reverse direction of a biflow (RFC 5103 6.1).
const reversePEN = 29305

// Information elements (IANA's registry of IPFIX entities). Numbers of bytes are those of the registry, or fewer (RFC 7011 6.2).
const (
	octetDeltaCount          = 1
	packetDeltaCount         = 2
	protocolIdentifier       = 4
	ipClassOfService         = 5
	tcpControlBits           = 6
	sourceTransportPort      = 7
	sourceIPv4Address        = 8
	ingressInterface         = 10
	destinationTransportPort = 11
	destinationIPv4Address   = 12
	egressInterface          = 14
	sourceIPv6Address        = 27
	destinationIPv6Address   = 28
	icmpTypeCodeIPv4         = 32
	samplingInterval         = 34
	samplingAlgorithm        = 35
	ipVersion                = 60
	interfaceName            = 82
	interfaceDescription     = 83
	forwardingStatus         = 89
	flowEndReason            = 136
	icmpTypeCodeIPv6         = 139
	observationDomainID      = 149
	flowStartMilliseconds    = 152
	flowEndMilliseconds      = 153
	vrfName                  = 236
	biflowDirection          = 239
	selectorAlgorithm        = 304
	samplingPacketInterval   = 305
	samplingPacketSpace      = 306
	samplingSize             = 309
)

// A field is one of a record's, in the template and in the data.
type field struct {
	element uint16
	size    uint16
	put     func(b []byte, x *entry)
	reverse bool // of the other direction's entry
}

// ends are the fields that both directions of a flow share.
func ends(src, dst, length uint16) []field {
	return []field{
		{element: src, size: length, put: func(b []byte, x *entry) { copy(b, x.key.src[:]) }},
		{element: dst, size: length, put: func(b []byte, x *entry) { copy(b, x.key.dst[:]) }},
		{element: sourceTransportPort, size: 2, put: func(b []byte, x *entry) { binary.BigEndian.PutUint16(b, x.key.srcPort) }},
		{element: destinationTransportPort, size: 2, put: func(b []byte, x *entry) { binary.BigEndian.PutUint16(b, x.key.dstPort) }},
		{element: protocolIdentifier, size: 1, put: func(b []byte, x *entry) { b[0] = x.key.protocol }},
		{element: ipVersion, size: 1, put: func(b []byte, x *entry) { b[0] = x.key.version }},
		{element: ingressInterface, size: 4, put: func(b []byte, x *entry) { binary.BigEndian.PutUint32(b, x.key.in) }},
		{element: egressInterface, size: 4, put: func(b []byte, x *entry) { binary.BigEndian.PutUint32(b, x.key.out) }},
		{element: forwardingStatus, size: 1, put: func(b []byte, x *entry) { b[0] = x.key.status }},
		{element: flowEndReason, size: 1, put: func(b []byte, x *entry) { b[0] = x.reason }},
	}
}

// counts are the fields that each direction has for itself.
func counts(icmpTypeCode uint16) []field {
	return []field{
		{element: octetDeltaCount, size: 8, put: func(b []byte, x *entry) { binary.BigEndian.PutUint64(b, x.octets) }},
		{element: packetDeltaCount, size: 8, put: func(b []byte, x *entry) { binary.BigEndian.PutUint64(b, x.packets) }},
		{element: samplingSize, size: 4, put: func(b []byte, x *entry) { binary.BigEndian.PutUint32(b, x.samples) }},
		{element: flowStartMilliseconds, size: 8, put: func(b []byte, x *entry) { binary.BigEndian.PutUint64(b, uint64(x.first)) }},
		{element: flowEndMilliseconds, size: 8, put: func(b []byte, x *entry) { binary.BigEndian.PutUint64(b, uint64(x.last)) }},
		{element: ipClassOfService, size: 1, put: func(b []byte, x *entry) { b[0] = x.class }},
		{element: tcpControlBits, size: 1, put: func(b []byte, x *entry) { b[0] = x.flags }},
		{element: icmpTypeCode, size: 2, put: func(b []byte, x *entry) { binary.BigEndian.PutUint16(b, x.icmp) }},
	}
}

// A template is the fields of a kind of record.
type template struct {
	id     uint16
	fields []field
	size   int // of a record
	scope  int // of the fields, the first ones say what an options record is about (RFC 7011 3.4.2.1)
}

func newTemplate(id uint16, scope int, fields []field) *template {
	t := &template{id: id, fields: fields, scope: scope}
	for _, f := range fields {
		t.size += int(f.size)
	}
	return t
}

func flowTemplates(family uint8) (flow, biflow *template) {
	shared, own := ends(sourceIPv4Address, destinationIPv4Address, 4), counts(icmpTypeCodeIPv4)
	ids := [...]uint16{flow4, biflow4}
	if family == 6 {
		shared, own = ends(sourceIPv6Address, destinationIPv6Address, 16), counts(icmpTypeCodeIPv6)
		ids = [...]uint16{flow6, biflow6}
	}
	fields := append(shared, own...)
	flow = newTemplate(ids[0], 0, fields[:len(fields):len(fields)])
	for _, f := range own {
		f.reverse = true
		fields = append(fields, f)
	}
	fields = append(fields, field{element: biflowDirection, size: 1, put: func(b []byte, x *entry) { b[0] = x.direction() }})
	return flow, newTemplate(ids[1], 0, fields)
}

// variable is the size of a field that has its length in front of it (RFC 7011 7).
const variable = 65535

// The templates of options.
var (
	interfaceOptions = newTemplate(interfaces, 1, []field{
		{element: ingressInterface, size: 4}, {element: interfaceName, size: variable},
		{element: interfaceDescription, size: variable}, {element: vrfName, size: variable}})
	samplingOptions = newTemplate(sampling, 1, []field{
		{element: observationDomainID, size: 4}, {element: samplingInterval, size: 4}, {element: samplingAlgorithm, size: 1},
		{element: selectorAlgorithm, size: 2}, {element: samplingPacketInterval, size: 4}, {element: samplingPacketSpace, size: 4}})
)

// template writes a template record (RFC 7011 3.4.1), or an options template record (3.4.2.2).
func (w *writer) template(t *template, now time.Time) {
	set, size := uint16(templateSet), 4
	if t.scope > 0 {
		set, size = optionsTemplateSet, 6
	}
	for _, f := range t.fields {
		size += 4
		if f.reverse {
			size += 4
		}
	}
	b := w.room(set, size, now)
	binary.BigEndian.PutUint16(b, t.id)
	binary.BigEndian.PutUint16(b[2:], uint16(len(t.fields)))
	b = b[4:]
	if t.scope > 0 {
		binary.BigEndian.PutUint16(b, uint16(t.scope))
		b = b[2:]
	}
	for _, f := range t.fields {
		binary.BigEndian.PutUint16(b, f.element)
		binary.BigEndian.PutUint16(b[2:], f.size)
		if f.reverse {
			b[0] |= 0x80 // an enterprise number follows
			binary.BigEndian.PutUint32(b[4:], reversePEN)
			b = b[4:]
		}
		b = b[4:]
	}
}

// record writes a flow, and its reverse if the template is one of biflows.
func (w *writer) record(t *template, forward, reverse *entry, now time.Time) {
	b := w.room(t.id, t.size, now)
	for i := range t.fields {
		f := &t.fields[i]
		x := forward
		if f.reverse {
			x = reverse
		}
		f.put(b[:f.size], x)
		b = b[f.size:]
	}
}

// samplingRecord tells that counts need not be multiplied: in words that old collectors know (elements 34 and 35), and in those of RFC
// 5477 8.2: of every packet that is counted one was selected, and none was left out.
func (w *writer) samplingRecord(now time.Time) {
	b := w.room(sampling, samplingOptions.size, now)
	binary.BigEndian.PutUint32(b, w.domain)
	binary.BigEndian.PutUint32(b[4:], 1)
	b[8] = 1                              // deterministic
	binary.BigEndian.PutUint16(b[9:], 1)  // systematic count-based sampling
	binary.BigEndian.PutUint32(b[11:], 1) // packets selected
	binary.BigEndian.PutUint32(b[15:], 0) // packets left out
}

// maxText is how many bytes of a text are told.
const maxText = 200

// interfaceRecord tells a tunnel's name, its id as the description, and its account as the VRF.
func (w *writer) interfaceRecord(i *ifindex.Interface, now time.Time) {
	texts := [...]string{i.Tunnel.Name, i.Tunnel.ID, i.Tunnel.Account}
	size := 4
	for k := range texts {
		texts[k] = texts[k][:min(len(texts[k]), maxText)]
		size += 1 + len(texts[k])
	}
	b := w.room(interfaces, size, now)
	binary.BigEndian.PutUint32(b, i.Index)
	b = b[4:]
	for _, s := range texts {
		b[0] = byte(len(s))
		b = b[1+copy(b[1:], s):]
	}
}
