package pcapport

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"causeway/xsk"
)

// epoch has a fraction that only nanoseconds can say.
var epoch = time.Unix(1_700_000_000, 123_456_789).UTC()

// layersOf serializes with lengths and checksums.
func layersOf(t testing.TB, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// someFrames are of lengths that are padded differently.
func someFrames(t testing.TB) [][]byte {
	var out [][]byte
	for n := range 5 {
		out = append(out, layersOf(t,
			&layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: []byte{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4},
			&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: []byte{192, 0, 2, 10}, DstIP: []byte{203, 0, 113, 9}},
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Seq: uint16(n)},
			gopacket.Payload(make([]byte, 18+n)))) // 60 bytes and more: shorter ones are padded
	}
	return out
}

// after is the time of frame i.
func after(i int) time.Time { return epoch.Add(time.Duration(i) * time.Second) }

func infoOf(i int, frame []byte) gopacket.CaptureInfo {
	return gopacket.CaptureInfo{Timestamp: after(i), CaptureLength: len(frame), Length: len(frame)}
}

// classic writes a pcap file; big turns the byte order of its headers round.
func classic(t testing.TB, frames [][]byte, nanoseconds, big bool) []byte {
	t.Helper()
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	if nanoseconds {
		w = pcapgo.NewWriterNanos(&file)
	}
	if err := w.WriteFileHeader(1500, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		if err := w.WritePacket(infoOf(i, f), f); err != nil {
			t.Fatal(err)
		}
	}
	b := file.Bytes()
	if !big {
		return b
	}
	swap := func(at, n int) { slices.Reverse(b[at : at+n]) }
	for at, n := range map[int]int{0: 4, 4: 2, 6: 2, 8: 4, 12: 4, 16: 4, 20: 4} {
		swap(at, n)
	}
	at := 24
	for _, f := range frames {
		for i := range 4 {
			swap(at+4*i, 4)
		}
		at += 16 + len(f)
	}
	return b
}

// ng writes a pcapng file.
func ng(t testing.TB, frames [][]byte) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := pcapgo.NewNgWriter(&file, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		if err := w.WritePacket(infoOf(i, f), f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// block is a block of a pcapng file, its body given as numbers of 16, 32 and 64 bits, and bytes.
func block(order appender, kind uint32, body ...any) []byte {
	var b bytes.Buffer
	for _, v := range body {
		if raw, ok := v.([]byte); ok {
			b.Write(raw)
			continue
		}
		_ = binary.Write(&b, order, v) // to memory
	}
	b.Write(make([]byte, -b.Len()&3))
	size := uint32(b.Len() + 12)
	out := order.AppendUint32(order.AppendUint32(nil, kind), size)
	return order.AppendUint32(append(out, b.Bytes()...), size)
}

type appender interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

func sectionBlock(order appender) []byte {
	return block(order, blockSection, uint32(byteOrderMagic), uint16(1), uint16(0), ^uint64(0))
}

func interfaceBlock(order appender, link uint16, snap uint32, options ...any) []byte {
	return block(order, blockInterface, append([]any{link, uint16(0), snap}, options...)...)
}

func readAll(t testing.TB, file []byte) ([]Frame, error) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	var all []Frame
	for {
		f, err := r.Next()
		if err != nil {
			if _, again := r.Next(); again != err {
				t.Errorf("the error is %v first and %v then", err, again)
			}
			if err == io.EOF {
				err = nil
			}
			return all, err
		}
		f.Data = slices.Clone(f.Data)
		all = append(all, f)
	}
}

func TestFormats(t *testing.T) {
	frames := someFrames(t)
	for _, c := range []struct {
		name string
		file []byte
		unit time.Duration
	}{
		{"pcap", classic(t, frames, false, false), time.Microsecond},
		{"pcap, nanoseconds", classic(t, frames, true, false), time.Nanosecond},
		{"pcap, big-endian", classic(t, frames, false, true), time.Microsecond},
		{"pcap, nanoseconds, big-endian", classic(t, frames, true, true), time.Nanosecond},
		{"pcapng", ng(t, frames), time.Nanosecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := readAll(t, c.file)
			if err != nil || len(got) != len(frames) {
				t.Fatalf("%d frames, want %d: %v", len(got), len(frames), err)
			}
			for i, f := range got {
				if !bytes.Equal(f.Data, frames[i]) || f.Length != len(frames[i]) || f.Number != i+1 || !f.Time.Equal(after(i).Truncate(c.unit)) {
					t.Errorf("frame %d: %d bytes of %d at %v: %x", f.Number, len(f.Data), f.Length, f.Time, f.Data)
				}
			}
		})
	}
}

// What Wireshark makes of a file has more in it: options, comments, other resolutions, frames that are cut.
func TestReadsWiresharksFiles(t *testing.T) {
	const editcap = "editcap" // of Debian's wireshark-common, which tshark needs
	if _, err := exec.LookPath(editcap); err != nil {
		t.Fatal("needs editcap: run scripts/deps.sh, or: apt-get install -y --no-install-recommends tshark")
	}
	dir := t.TempDir()
	frames := someFrames(t)
	in := filepath.Join(dir, "in")
	if err := os.WriteFile(in, classic(t, frames, true, false), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		cut  int
		unit time.Duration
	}{
		{"pcapng", []string{"-F", "pcapng", "--capture-comment", "by editcap", "-a", "2:the second"}, 0, time.Nanosecond},
		{"cut", []string{"-F", "pcapng", "-s", "42"}, 42, time.Nanosecond},
		{"pcap", []string{"-F", "pcap"}, 0, time.Microsecond},
		{"nsecpcap cut", []string{"-F", "nsecpcap", "-s", "42"}, 42, time.Nanosecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(dir, c.name)
			if text, err := exec.Command(editcap, append(c.args, in, out)...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			file, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			got, err := readAll(t, file)
			if err != nil || len(got) != len(frames) {
				t.Fatalf("%d frames, want %d: %v", len(got), len(frames), err)
			}
			for i, f := range got {
				want, fit := frames[i], Whole
				if c.cut > 0 && len(want) > c.cut {
					want, fit = want[:c.cut], Cut
				}
				if !bytes.Equal(f.Data, want) || f.Length != len(frames[i]) || f.Fit() != fit || !f.Time.Equal(after(i).Truncate(c.unit)) {
					t.Errorf("frame %d: %d bytes of %d at %v, fit %d", f.Number, len(f.Data), f.Length, f.Time, f.Fit())
				}
			}
		})
	}
}

// pcapng says much in its own way: each interface has its unit of time, sections begin anew, and so may the byte order.
func TestSectionsAndInterfaces(t *testing.T) {
	frame := someFrames(t)[4]
	n := uint32(len(frame))
	var file []byte
	for _, order := range []appender{binary.LittleEndian, binary.BigEndian} {
		packet := func(at uint32, units uint64) []byte {
			return block(order, blockEnhanced, at, uint32(units>>32), uint32(units), n, n, frame)
		}
		file = slices.Concat(file, sectionBlock(order),
			interfaceBlock(order, 1, 42),
			block(order, 4, []byte("a block of names, which nobody needs")),
			interfaceBlock(order, 1, 0, uint16(9), uint16(1), []byte{0x83, 0, 0, 0}, // eighths of a second
				uint16(14), uint16(8), int64(-1000)), // long ago
			interfaceBlock(order, 276, 0, uint16(9), uint16(1), []byte{3, 0, 0, 0}, uint16(0), uint16(0)), // nothing came by it
			interfaceBlock(order, 1, 0, uint16(9), uint16(1), []byte{19, 0, 0, 0}),
			packet(0, 5_000_001),
			packet(1, 8*1001+4),
			packet(3, 15e18+1e10),
			block(order, blockPacket, uint16(1), uint16(0), uint32(0), uint32(8*1000), n, n, frame),
			block(order, blockSimple, n, frame[:42]))
	}
	got, err := readAll(t, file)
	if err != nil || len(got) != 10 {
		t.Fatalf("%d frames, want 10: %v", len(got), err)
	}
	times := []time.Time{time.Unix(5, 1000), time.Unix(1, 5e8), time.Unix(1, 500_000_001), time.Unix(0, 0), time.Unix(0, 0)}
	for i, f := range got {
		want, fit := frame, Whole
		if i%5 == 4 {
			want, fit = frame[:42], Cut
		}
		if !bytes.Equal(f.Data, want) || f.Length != len(frame) || f.Fit() != fit || !f.Time.Equal(times[i%5]) {
			t.Errorf("frame %d: %d bytes of %d at %v, want %v", f.Number, len(f.Data), f.Length, f.Time.Unix(), times[i%5])
		}
	}
}

// A file that ends anywhere gives the frames that are whole, and says that there was more unless it ends between two.
func TestCutShort(t *testing.T) {
	frames := someFrames(t)[:2]
	for name, file := range map[string][]byte{"pcap": classic(t, frames, false, false), "pcapng": ng(t, frames)} {
		whole := 0
		for n := 24; n <= len(file); n++ {
			got, err := readAll(t, file[:n])
			if len(got) < whole || len(got) > whole+1 || err != nil && !strings.Contains(err.Error(), "ends in the middle") {
				t.Errorf("%s, %d bytes: %d frames, before %d: %v", name, n, len(got), whole, err)
			}
			if len(got) > whole && err != nil {
				t.Errorf("%s, %d bytes: frame %d is whole: %v", name, n, len(got), err)
			}
			whole = len(got)
		}
		if whole != len(frames) {
			t.Errorf("%s: %d frames", name, whole)
		}
	}
}

func TestWhatCannotBeRead(t *testing.T) {
	order := binary.LittleEndian
	frame := someFrames(t)[0]
	n := uint32(len(frame))
	section, ethernet := sectionBlock(order), interfaceBlock(order, 1, 0)
	good := slices.Concat(section, ethernet, block(order, blockEnhanced, uint32(0), uint64(0), n, n, frame))
	edit := func(file []byte, at int, v uint32) []byte {
		file = slices.Clone(file)
		order.PutUint32(file[at:], v)
		return file
	}
	behind := func(b ...[]byte) []byte { return slices.Concat(append([][]byte{good}, b...)...) }
	pcap := classic(t, [][]byte{frame}, false, false)
	for _, c := range []struct {
		name, says string
		file       []byte
	}{
		{"nothing", "0 bytes: too short for a capture file", nil},
		{"text", "begins with 6e 6f 64 65: neither a pcap nor a pcapng file", []byte("node: {name: edge-1}")},
		{"gzip", "one that is compressed must be unpacked first", []byte{0x1f, 0x8b, 8, 0, 0}},
		{"pcap header", "the header of the file: the file ends in the middle of it", pcap[:23]},
		{"pcap version", "the header of the file: Unknown major version 9", edit(pcap, 4, 9)},
		{"pcap of any", "link type 276: only Ethernet (1) is possible", edit(pcap, 20, 276)},
		{"pcap of 257", "link type 257", edit(pcap, 20, 257)},
		{"pcap length", "frame 1: the file is damaged: capture length exceeds", edit(pcap, 32, 1<<30)},
		{"pcap lengths", "frame 1: the file is damaged: capture length exceeds original packet length", edit(pcap, 36, 1)},
		{"byte order", "a section whose byte order is 01 02 03 04", edit(good, 8, 0x04030201)},
		{"version", "frame 1: pcapng version 2: version 1 can be read", edit(good, 12, 2)},
		{"section", "a section header of 4 bytes", block(order, blockSection, uint32(byteOrderMagic))},
		{"any", "frame 2: link type 276: only Ethernet (1) is possible", behind(interfaceBlock(order, 276, 0), block(order, blockEnhanced, uint32(1), uint64(0), n, n, frame))},
		{"no interface", "frame 2: the file is damaged: it is of interface 7, and the section has 1", behind(block(order, blockEnhanced, uint32(7), uint64(0), n, n, frame))},
		{"interface of before", "frame 2: the file is damaged: it is of interface 0, and the section has 0", behind(section, block(order, blockSimple, n, frame))},
		{"short block", "a block of 8 bytes", behind(edit(edit(ethernet, 4, 8), 8, 8))},
		{"odd block", "a block of 21 bytes", behind(edit(ethernet, 4, 21))},
		{"huge block", "a block of 4294967292 bytes", behind(edit(ethernet, 4, 1<<32-4))},
		{"two lengths", "a block of 20 bytes says 24 at its end", behind(edit(ethernet, 16, 24))},
		{"short interface", "an interface description of 4 bytes", behind(block(order, blockInterface, uint32(1)))},
		{"long option", "an option of 9 bytes where 4 are left", behind(interfaceBlock(order, 1, 0, uint16(2), uint16(9), uint32(0)))},
		{"power of ten", "an interface whose unit of time is 0x14", behind(interfaceBlock(order, 1, 0, uint16(9), uint16(1), []byte{20}))},
		{"power of two", "an interface whose unit of time is 0xc0", behind(interfaceBlock(order, 1, 0, uint16(9), uint16(1), []byte{0xc0}))},
		{"short packet", "a packet block of 16 bytes", behind(block(order, blockEnhanced, make([]byte, 16)))},
		{"short simple packet", "a packet block of 0 bytes", behind(block(order, blockSimple))},
		{"more than there is", "61 bytes captured of a frame of 61, in a block with room for 60", behind(block(order, blockEnhanced, uint32(0), uint64(0), n+1, n+1, frame))},
		{"more than there was", "60 bytes captured of a frame of 59", behind(block(order, blockEnhanced, uint32(0), uint64(0), n, n-1, frame))},
		{"simple with more", "frame 2: the file is damaged: 61 bytes captured", behind(block(order, blockSimple, n+1, frame))},
	} {
		got, err := readAll(t, c.file)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
		if strings.HasPrefix(c.says, "frame 2") && len(got) != 1 {
			t.Errorf("%s: %d frames were read before", c.name, len(got))
		}
	}
}

func TestFit(t *testing.T) {
	for _, c := range []struct {
		captured, length int
		want             Fit
	}{
		{0, 0, Whole}, {60, 60, Whole}, {xsk.MaxPacket, xsk.MaxPacket, Whole},
		{60, 61, Cut}, {0, 60, Cut}, {1800, 9000, Cut},
		{xsk.MaxPacket + 1, xsk.MaxPacket + 1, TooLarge},
	} {
		if got := (Frame{Length: c.length, Data: make([]byte, c.captured)}).Fit(); got != c.want {
			t.Errorf("%d bytes of %d: %d, want %d", c.captured, c.length, got, c.want)
		}
	}
}
