package wire

import "testing"

func TestCheckUDP(t *testing.T) {
	for _, c := range []struct {
		b    []byte
		want int
	}{
		{[]byte{0, 1, 0, 2, 0, 8, 0, 0}, 8},
		{[]byte{0, 1, 0, 2, 0, 10, 0, 0, 1, 2}, 10},
		{[]byte{0, 1, 0, 2, 0, 9, 0, 0, 1, 2}, 9}, // IP may carry more than UDP says
	} {
		if got, f := CheckUDP(c.b); got != c.want || f != OK {
			t.Errorf("% x: got %d, %q", c.b, got, f)
		}
	}
}

// TestPort4500 covers each kind of payload that RFC 3948 section 2 knows.
func TestPort4500(t *testing.T) {
	for _, c := range []struct {
		name                string
		b                   []byte
		esp, ike, keepalive bool
	}{
		{"esp", []byte{0, 0, 0x10, 1, 0, 0, 0, 1}, true, false, false},
		{"esp with a low spi", []byte{0, 0, 0, 1}, true, false, false},
		{"ike", []byte{0, 0, 0, 0, 1, 2, 3, 4}, false, true, false},
		{"marker alone", []byte{0, 0, 0, 0}, false, true, false},
		{"keepalive", []byte{0xff}, false, false, true},
		{"one other byte", []byte{0}, false, false, false},
		{"keepalive and more", []byte{0xff, 0xff}, false, false, false},
		{"half a marker", []byte{0, 0, 1}, false, false, false},
		{"nothing", nil, false, false, false},
	} {
		if IsESPInUDP(c.b) != c.esp || IsIKEInUDP(c.b) != c.ike || IsNATKeepalive(c.b) != c.keepalive {
			t.Errorf("%s: esp %v, ike %v, keepalive %v", c.name, IsESPInUDP(c.b), IsIKEInUDP(c.b), IsNATKeepalive(c.b))
		}
	}
}
