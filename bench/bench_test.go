package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"causeway/crypto/aesgcm"
	"causeway/pipeline"
	"causeway/xsk"
)

// TestMain lets the test's binary be the program itself: the veth scenario starts it for its forwarders.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// output runs a command line and returns its exit status and what it printed.
func output(t *testing.T, args ...string) (status int, out string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = stdout }()
	text := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(r)
		text <- b
	}()
	status = run(args)
	w.Close()
	return status, string(<-text)
}

// results runs a scenario with -quick -json and checks what holds for every line.
func results(t *testing.T, args ...string) []Result {
	t.Helper()
	status, out := output(t, append(args, "-quick", "-json")...)
	if status != 0 {
		t.Fatalf("bench %v: exit status %d", args, status)
	}
	var all []Result
	for line := range strings.Lines(out) {
		var r Result
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		// On a busy machine a difference of two quick times may have any sign: only a longer run gives figures.
		if !strings.HasPrefix(r.Name, args[0]+"/") || r.PPS == 0 || r.NS == 0 || r.Spread < 0 || r.CPU == "" || r.UnixTime == 0 {
			t.Errorf("not a sane result: %s", line)
		}
		if product := r.PPS * r.NS; product < 0.999e9 || product > 1.001e9 {
			t.Errorf("packets/s and ns/packet contradict each other: %s", line)
		}
		all = append(all, r)
	}
	return all
}

// TestFieldNames is the contract with whoever reads the output: these names do not change.
func TestFieldNames(t *testing.T) {
	_, out := output(t, "fib", "-quick", "-json", "-only", "fib/ipv6")
	var fields map[string]any
	if err := json.Unmarshal([]byte(out), &fields); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	for _, name := range []string{"name", "packets_per_second", "ns_per_packet", "spread", "against", "against_ns", "ratio",
		"allocs_per_round", "go", "cpu", "unix_time", "memory_mib", "updates_per_second"} {
		if _, ok := fields[name]; !ok {
			t.Errorf("no field %q in %s", name, out)
		}
	}
}

func TestWrongUse(t *testing.T) {
	stderr := os.Stderr
	os.Stderr, _ = os.Open(os.DevNull)
	defer func() { os.Stderr = stderr }()
	for _, args := range [][]string{{}, {"-json"}, {"nothing"}, {"fib", "-nothing"}, {forwarderCommand}, {forwarderCommand, "bare", "x"}} {
		if status, _ := output(t, args...); status != 2 {
			t.Errorf("bench %v: exit status %d, want 2", args, status)
		}
	}
}

func TestFib(t *testing.T) {
	for _, r := range results(t, "fib") {
		if r.Against == "" || r.Ratio != r.NS/r.AgainstNS || r.MemoryMiB <= 0 || r.UpdatesSec <= 0 {
			t.Errorf("%+v", r)
		}
	}
}

// TestPipeline runs every kind of traffic; each case compares the frames that leave with the oracle's by itself.
func TestPipeline(t *testing.T) {
	var names []string
	for _, only := range []string{"64B/tunnels=1/routes=10", "encap/1400B/tunnels=1000/", "decap/1400B/tunnels=1000/"} {
		for _, r := range results(t, "pipeline", "-only", only) {
			names = append(names, r.Name)
			// Other goroutines of the process may allocate; the worker, which sees some thousand batches, may not.
			if r.Allocs > 50 {
				t.Errorf("%s: %v allocations", r.Name, r.Allocs)
			}
		}
	}
	want := []string{
		"pipeline/encap/64B/tunnels=1/routes=10", "pipeline/decap/64B/tunnels=1/routes=10",
		"pipeline/lateral/64B/tunnels=1/routes=10", "pipeline/forward/64B/tunnels=1/routes=10",
		"pipeline/encap/1400B/tunnels=1000/routes=10", "pipeline/decap/1400B/tunnels=1000/routes=10",
		"pipeline/encap/64B/tunnels=1/routes=10/sampling=1000", "pipeline/decap/64B/tunnels=1/routes=10/sampling=1000",
		"pipeline/lateral/64B/tunnels=1/routes=10/sampling=1000",
	}
	slices.Sort(names)
	slices.Sort(want)
	// "routes=10" is also the beginning of the large table's name.
	names = slices.DeleteFunc(names, func(n string) bool { return strings.HasSuffix(n, "routes=1000000") })
	if !slices.Equal(names, want) {
		t.Errorf("results %q, want %q", names, want)
	}
}

// TestVerifyNotices changes one packet behind the pipeline's back: the comparison after the timing must fail.
func TestVerifyNotices(t *testing.T) {
	for _, kind := range []string{"encap", "decap", "lateral", "forward"} {
		c := pipelineCase{kind: kind, size: 64, tunnels: 3, routes: 10}
		u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: frames})
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		q := &rotation{}
		w, err := newWorld(c, q, u)
		if err != nil {
			t.Fatal(err)
		}
		var packets [][]byte
		*q = *newRotation(u, frames, func(int) []byte {
			packets = append(packets, w.packet(c))
			return packets[len(packets)-1]
		})
		if err := verify(w, q, u, packets, c); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		packets[17] = bytes.Clone(packets[17])
		packets[17][len(packets[17])-1] ^= 1
		if verify(w, q, u, packets, c) == nil {
			t.Errorf("%s: a frame with a wrong last byte was not noticed", kind)
		}
	}
}

// TestConfiguration reads the largest configuration the daemon's way.
func TestConfiguration(t *testing.T) {
	const tunnels = 10000
	s, err := specOf(configuration(tunnels), []pipeline.LinkSpec{{MAC: ownMAC, MTU: 1600}})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Tunnels) != tunnels || len(s.Links) != 1 || !slices.Equal(s.Endpoints, []netip.Addr{endpoint}) {
		t.Fatalf("%d tunnels, links %v, endpoints %v", len(s.Tunnels), s.Links, s.Endpoints)
	}
	for _, i := range []int{0, 1, 127, 128, 255, 256, tunnels - 1} {
		got := s.Tunnels[i]
		if got.Account != "default" || got.CustomerEndpoint != customer(i) || !slices.Equal(got.Prefixes, []netip.Prefix{inside(i)}) ||
			got.MTU != 1476 || !got.Interface4.IsValid() {
			t.Errorf("tunnel %d: %+v", i, got)
		}
	}
}

// TestCrypto: each line stands beside crypto/cipher and the limit. What was timed is compared by the scenario itself.
func TestCrypto(t *testing.T) {
	if !aesgcm.Accelerated() {
		if status, _ := output(t, "crypto", "-quick"); status != 1 {
			t.Errorf("without kernels: exit status %d, want 1", status)
		}
		return
	}
	var names []string
	for _, r := range results(t, "crypto", "-only", "aes128/") {
		names = append(names, r.Name)
		if r.Against != "crypto/cipher" || r.AgainstNS <= 0 || r.BestNS <= 0 || r.ReadyNS <= 0 || r.LimitNS <= 0 || r.GBs <= 0 {
			t.Errorf("%+v", r)
		}
	}
	var want []string
	for _, c := range cryptoCases() {
		if c.keyBits == 128 {
			want = append(want, c.name())
		}
	}
	if !slices.Equal(names, want) {
		t.Errorf("results %q, want %q", names, want)
	}
}

// TestESP runs both ways; each case compares the frames of its last pass with what must have become of them.
func TestESP(t *testing.T) {
	var names []string
	for _, r := range results(t, "esp", "-only", "sas=1000") {
		names = append(names, r.Name)
		if r.Allocs > 50 {
			t.Errorf("%s: %v allocations", r.Name, r.Allocs)
		}
	}
	want := []string{
		"esp/encap/aes128gcm16/64B/sas=1000", "esp/encap/aes128gcm16/1400B/sas=1000",
		"esp/encap/aes128gcm16/64B/sas=10000", "esp/encap/aes128gcm16/1400B/sas=10000",
		"esp/decap/aes128gcm16/64B/sas=1000", "esp/decap/aes128gcm16/1400B/sas=1000",
		"esp/decap/aes128gcm16/64B/sas=10000", "esp/decap/aes128gcm16/1400B/sas=10000",
	}
	if !slices.Equal(names, want) {
		t.Errorf("results %q, want %q", names, want)
	}
}

// TestCryptoNotices: a wrong byte in what was timed is noticed.
func TestCryptoNotices(t *testing.T) {
	v := aesgcm.NewVault(aesgcm.Options{Portable: true})
	packets, err := cryptoSample(cryptoCase{keyBits: 128, size: 64}, v)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []byte{0, 1} {
		right := true
		timeSample(packets, false, func(p []cryptoPacket, open bool) bool {
			good := treatBursts(new(aesgcm.Burst), p, open)
			p[17].text[63] ^= wrong
			return good
		}, &right)
		if right != (wrong == 0) {
			t.Errorf("a byte turned by %d: right is %v", wrong, right)
		}
	}
}

func TestGap(t *testing.T) {
	all := results(t, "gap")
	if len(all) != 2 || all[0].Name != "gap/quiet" || all[1].Name != "gap/changing" {
		t.Fatalf("%+v", all)
	}
	for _, r := range all {
		var polls uint64
		for _, b := range r.Gaps.Histogram {
			polls += b.Count
		}
		if polls == 0 || r.Gaps.MaxNS == 0 {
			t.Errorf("%s: %d polls, longest gap %d ns", r.Name, polls, r.Gaps.MaxNS)
		}
		// The port and the worker measured the longest gap independently: their clocks are read some 50 ns apart, so it may
		// fall on either side of a bound.
		last := r.Gaps.Histogram[len(r.Gaps.Histogram)-1]
		if last.BelowNS != 0 && r.Gaps.MaxNS > 2*last.BelowNS {
			t.Errorf("%s: longest gap %d ns, but all are below %d", r.Name, r.Gaps.MaxNS, last.BelowNS)
		}
	}
	if g := all[1].Gaps; g.Applies == 0 || g.Routes == 0 || g.Scrapes == 0 {
		t.Errorf("nothing happened: %+v", g)
	}
	if all[1].Against != "gap/quiet" || all[1].AgainstNS != all[0].NS {
		t.Errorf("%+v", all[1])
	}
}

func TestRounds(t *testing.T) {
	next := func(values ...float64) func() float64 {
		return func() float64 {
			v := values[0]
			values = values[1:]
			return v
		}
	}
	if m, want := rounds(3, next(12, 10, 14), next(1, 3, 2)), (timings{12, 2, 10, 1, 4. / 12}); m != want {
		t.Errorf("%+v, want %+v", m, want)
	}
}

// TestQuietest uses the samples in which generator and forwarder waited least for their cores.
func TestQuietest(t *testing.T) {
	v := &vethBench{rounds: 3}
	all := []sample{{pps: 9, waited: 0.5}, {pps: 1, waited: 0.02}, {pps: 5, waited: 0.04}, {pps: 4}}
	use := v.quietest(all)
	if want := []sample{{pps: 4}, {pps: 1, waited: 0.02}, {pps: 5, waited: 0.04}}; !reflect.DeepEqual(use, want) {
		t.Errorf("%v, want %v", use, want)
	}
	if pps, spread := median(use); pps != 4 || spread != 1 {
		t.Errorf("median %v, spread %v", pps, spread)
	}
	for _, c := range []struct {
		waited float64
		enough bool
	}{{0.03, true}, {0.04, false}} {
		v.samples = map[string][]sample{"a": {{}, {}, {waited: c.waited}, {waited: 1}}, "b": {{}, {}, {}}}
		if v.enough() != c.enough {
			t.Errorf("three samples with at most %v waiting: enough is %v", c.waited, !c.enough)
		}
	}
	v.samples["b"] = v.samples["b"][:2]
	if v.samples["a"][2].waited = 0; v.enough() {
		t.Error("two samples are called three")
	}
}

// health: each tunnel gets one probe a second of all nodes, and all know of what breaks.
func TestHealthScenario(t *testing.T) {
	all := results(t, "health")
	if len(all) != 3 || all[1].Samples != 4 || all[2].Samples != 80 {
		t.Fatalf("%+v", all)
	}
}
