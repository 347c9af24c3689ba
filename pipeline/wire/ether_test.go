package wire

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func TestParseEthernet(t *testing.T) {
	macs := pattern(12)
	for _, c := range []struct {
		name string
		tail []byte
		want Ethernet
	}{
		{"ipv4", []byte{8, 0}, Ethernet{Type: EtherTypeIPv4, L3: 14}},
		{"ipv6", []byte{0x86, 0xdd, 0x60}, Ethernet{Type: EtherTypeIPv6, L3: 14}},
		{"802.3 length", []byte{0, 46}, Ethernet{Type: 46, L3: 14}},
		{"vlan 100", []byte{0x81, 0, 0, 100, 8, 0}, Ethernet{Type: EtherTypeIPv4, VLAN: 100, L3: 18, Tagged: true}},
		{"priority and drop bits", []byte{0x81, 0, 0xf0, 2, 8, 6}, Ethernet{Type: EtherTypeARP, VLAN: 2, L3: 18, Tagged: true}},
		{"priority tag", []byte{0x81, 0, 0xe0, 0, 8, 0}, Ethernet{Type: EtherTypeIPv4, L3: 18, Tagged: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, f := ParseEthernet(join(macs, c.tail))
			if f != OK {
				t.Fatal(f)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// FuzzEthernet compares with gopacket, which follows tags to any depth.
func FuzzEthernet(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		e, fault := ParseEthernet(b)
		if fault != OK {
			if len(b) >= EthernetLen+VLANLen && b[12] != 0x81 && b[12] != 0x88 {
				t.Fatalf("%q for an untagged frame of %d bytes", fault, len(b))
			}
			return
		}
		var eth layers.Ethernet
		if err := eth.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
			if e.Type >= 0x600 { // IEEE 802.3 3.2.6: what is less is a length, which gopacket checks and we leave to the caller
				t.Fatalf("gopacket: %v; got %+v", err, e)
			}
			return
		}
		kind, l3 := eth.EthernetType, 14
		if kind == layers.EthernetTypeDot1Q {
			var tag layers.Dot1Q
			if err := tag.DecodeFromBytes(eth.Payload, gopacket.NilDecodeFeedback); err != nil {
				t.Fatalf("gopacket: %v", err)
			}
			if !e.Tagged || e.VLAN != tag.VLANIdentifier {
				t.Fatalf("tag %+v, gopacket %d", e, tag.VLANIdentifier)
			}
			kind, l3 = tag.Type, 18
		}
		if e.L3 != l3 || kind != layers.EthernetTypeLLC && e.Type != uint16(kind) {
			t.Fatalf("got %+v, gopacket type %#04x at %d", e, uint16(kind), l3)
		}
	})
}
