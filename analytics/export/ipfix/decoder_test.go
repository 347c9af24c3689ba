package ipfix

import (
	"encoding/binary"
	"testing"
)

// A decoder reads IPFIX messages by RFC 7011 section 3, as plainly as can be.
type decoder struct {
	t         *testing.T
	templates map[uint16][]decoderField
	scopes    map[uint16]int
	records   []decoded
	sequence  uint32 // what the next message must have
	messages  int
}

type decoderField struct {
	element element
	size    uint16
}

// element is an information element; those of the reverse direction have the reverse PEN.
type element struct {
	enterprise uint32
	id         uint16
}

// decoded is a data record.
type decoded struct {
	template uint16
	values   map[element][]byte
}

func (d decoded) bytes(id uint16) []byte   { return d.values[element{0, id}] }
func (d decoded) number(id uint16) uint64  { return number(d.values[element{0, id}]) }
func (d decoded) reverse(id uint16) uint64 { return number(d.values[element{reversePEN, id}]) }
func (d decoded) text(id uint16) string    { return string(d.values[element{0, id}]) }
func (d decoded) isFlow() (flow, bidi bool) {
	return d.template <= biflow6, d.template >= biflow4 && d.template <= biflow6
}
func newDecoder(t *testing.T) *decoder {
	return &decoder{t: t, templates: map[uint16][]decoderField{}, scopes: map[uint16]int{}}
}
func (d *decoder) flows() (all []decoded) {
	return d.where(func(r decoded) bool { flow, _ := r.isFlow(); return flow })
}
func (d *decoder) of(id uint16) (all []decoded) {
	return d.where(func(r decoded) bool { return r.template == id })
}

func (d *decoder) where(f func(decoded) bool) (all []decoded) {
	for _, r := range d.records {
		if f(r) {
			all = append(all, r)
		}
	}
	return all
}

func number(b []byte) (n uint64) {
	for _, x := range b {
		n = n<<8 | uint64(x)
	}
	return n
}

func (d *decoder) message(b []byte) {
	d.t.Helper()
	d.messages++
	be := binary.BigEndian
	if len(b) > MaxMessage || be.Uint16(b) != 10 || int(be.Uint16(b[2:])) != len(b) {
		d.t.Fatalf("a message of %d bytes begins with % x", len(b), b[:16])
	}
	if got := be.Uint32(b[8:]); got != d.sequence {
		d.t.Fatalf("sequence number %d, want %d", got, d.sequence)
	}
	for b = b[16:]; len(b) > 0; {
		id, size := be.Uint16(b), int(be.Uint16(b[2:]))
		if size < 5 || size > len(b) {
			d.t.Fatalf("set %d is %d bytes long, %d are left", id, size, len(b))
		}
		set := b[4:size]
		b = b[size:]
		for len(set) > 0 {
			switch {
			case id == templateSet || id == optionsTemplateSet:
				set = d.template(set, id == optionsTemplateSet)
			case d.templates[id] == nil:
				d.t.Fatalf("data before its template: %d", id)
			default:
				set = d.record(set, id)
				d.sequence++
			}
		}
	}
}

func (d *decoder) template(b []byte, options bool) []byte {
	be := binary.BigEndian
	id, n := be.Uint16(b), int(be.Uint16(b[2:]))
	b = b[4:]
	if options {
		d.scopes[id] = int(be.Uint16(b))
		b = b[2:]
	}
	var fields []decoderField
	for range n {
		f := decoderField{element: element{0, be.Uint16(b) & 0x7fff}, size: be.Uint16(b[2:])}
		if b[0]&0x80 != 0 {
			f.element.enterprise = be.Uint32(b[4:])
			b = b[4:]
		}
		b = b[4:]
		fields = append(fields, f)
	}
	d.templates[id] = fields
	return b
}

func (d *decoder) record(b []byte, id uint16) []byte {
	r := decoded{template: id, values: map[element][]byte{}}
	for _, f := range d.templates[id] {
		size := int(f.size)
		if f.size == 65535 {
			size = int(b[0])
			b = b[1:]
		}
		if _, twice := r.values[f.element]; twice {
			d.t.Fatalf("template %d has element %v twice", id, f.element)
		}
		r.values[f.element] = append([]byte{}, b[:size]...)
		b = b[size:]
	}
	d.records = append(d.records, r)
	return b
}
