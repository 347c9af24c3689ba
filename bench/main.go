// Command bench measures Causeway's rooms, each against something else in the same run, on the same work. A ratio
// counts; an absolute figure does not.
//
//	go run ./bench <scenario> [-json]
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// A Result is one line of output. Its JSON names do not change once released.
type Result struct {
	Name       string  `json:"name"`
	PPS        float64 `json:"packets_per_second"`
	NS         float64 `json:"ns_per_packet"`                // median over the rounds
	BestNS     float64 `json:"best_ns_per_packet,omitempty"` // from the fastest round: what the machine's other tenants did not disturb
	Spread     float64 `json:"spread"`                       // (largest - smallest) / median
	Against    string  `json:"against,omitempty"`            // what was measured in the same run
	AgainstNS  float64 `json:"against_ns,omitempty"`
	Ratio      float64 `json:"ratio,omitempty"` // NS of the whole / AgainstNS
	GoalNS     float64 `json:"goal_ns,omitempty"`
	Allocs     float64 `json:"allocs_per_round"`
	Note       string  `json:"note,omitempty"`
	GOAMD64    string  `json:"goamd64,omitempty"`
	Go         string  `json:"go"`
	CPU        string  `json:"cpu"`
	UnixTime   int64   `json:"unix_time"`
	MemoryMiB  float64 `json:"memory_mib,omitempty"`
	UpdatesSec float64 `json:"updates_per_second,omitempty"`
	Gaps       *Gaps   `json:"gaps,omitempty"` // gap scenario

	// crypto scenario
	GBs       float64 `json:"gigabytes_per_second,omitempty"`
	ReadyNS   float64 `json:"ready_ns,omitempty"` // of bursts whose packets are set already
	LimitNS   float64 `json:"limit_ns,omitempty"` // what the instructions alone take
	IPsecMBNS float64 `json:"ipsec_mb_ns,omitempty"`

	// esp scenario: DPDK's ipsec-secgw on the same work
	SecgwNS     float64 `json:"ipsec_secgw_ns,omitempty"`      // median of its windows, its ports' cost counted in
	SecgwBestNS float64 `json:"ipsec_secgw_best_ns,omitempty"` // the fastest window
	SecgwPortNS float64 `json:"ipsec_secgw_port_ns,omitempty"` // its ports alone: testpmd on them

	// ike scenario
	Unit         string  `json:"unit,omitempty"`             // what stands in the place of a packet
	InitiatorNS  float64 `json:"initiator_ns,omitempty"`     // what the other end took for it
	TunnelMemory float64 `json:"bytes_per_tunnel,omitempty"` // of the responder; in cluster of a pair and node

	// cluster scenario
	P99NS    float64 `json:"p99_ns,omitempty"`
	Samples  int     `json:"samples,omitempty"`
	LateAcks uint64  `json:"late_acknowledgements,omitempty"`
	Bytes    uint64  `json:"bytes,omitempty"` // to and from a late node
}

// A scenario measures one thing and reports results as they come.
type scenario struct {
	what string
	run  func(o options, report func(Result)) error
}

type options struct {
	json  bool
	quick bool
	full  bool
	only  string
}

var scenarios = map[string]scenario{
	"cluster":  {"nodes in one process, with real NATS: until a pair is usable on all, rekeyings a second, late nodes, memory", clusterScenario},
	"pipeline": {"the worker over memory: decap, encap, lateral, forward", pipelineScenario},
	"crypto":   {"AES-GCM in bursts against crypto/cipher, intel-ipsec-mb and the processor's limit", cryptoScenario},
	"esp":      {"the worker over memory: IPsec tunnels with AES-128-GCM, both ways, against DPDK's ipsec-secgw", espScenario},
	"fib":      {"route look-up against bart on the same table", fibScenario},
	"health":   {"nodes that share the probing of ten thousand tunnels: processor time, probes a tunnel gets, until all know that one is down", healthScenario},
	"gap":      {"longest time between two polls of a worker while tables change and metrics are scraped", gapScenario},
	"ike":      {"IKEv2 handshakes beside strongSwan's charon, and 10,000 tunnels that are rekeyed (root)", ikeScenario},
	"veth":     {"forwarding between namespaces against bare rings, asavie/xdp and DPDK (root)", vethScenario},
}

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	var o options
	fs.BoolVar(&o.json, "json", false, "print one JSON object per result")
	fs.BoolVar(&o.quick, "quick", false, "few short rounds: for tests that the scenarios work, not for figures")
	fs.BoolVar(&o.full, "full", false, "cluster: 50 and 100 nodes and 100,000 tunnels too, for which it takes ten minutes more")
	fs.StringVar(&o.only, "only", "", "run only the results whose name contains this")
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: bench <scenario> [-json] [-quick] [-only TEXT]\nscenarios:")
		for _, n := range scenarioNames() {
			fmt.Fprintf(fs.Output(), "  %-10s %s\n", n, scenarios[n].what)
		}
		fs.PrintDefaults()
	}
	if len(args) > 0 && slices.Contains([]string{"-h", "-help", "--help"}, args[0]) {
		fs.Usage()
		return 0
	}
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		fmt.Fprintln(os.Stderr, "bench: the scenario comes first")
		fs.Usage()
		return 2
	}
	if args[0] == forwarderCommand {
		return runForwarder(args[1:], os.Stdout) // a child of the veth scenario
	}
	if args[0] == ikeEndCommand {
		return runIKEEnd(args[1:], os.Stdin, os.Stdout) // a child of the ike scenario
	}
	s, ok := scenarios[args[0]]
	if !ok {
		fmt.Fprintf(os.Stderr, "bench: no scenario %q; there are %s\n", args[0], strings.Join(scenarioNames(), ", "))
		return 2
	}
	if err := fs.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "bench: what is %q? one scenario, then flags\n", fs.Arg(0))
		return 2
	}
	results := 0
	err := s.run(o, func(r Result) {
		results++
		print(o, r)
	})
	if err == nil && results == 0 {
		err = fmt.Errorf("no result's name contains %q", o.only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func scenarioNames() []string {
	var names []string
	for n := range scenarios {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func print(o options, r Result) {
	r.Go, r.CPU, r.GOAMD64, r.UnixTime = runtime.Version(), cpuModel(), goamd64(), time.Now().Unix()
	if o.json {
		b, err := json.Marshal(r)
		if err != nil {
			panic(err) // the type holds nothing that can not be encoded
		}
		fmt.Println(string(b))
		return
	}
	if r.P99NS > 0 {
		printTimes(r)
		return
	}
	if r.Unit != "" {
		printUnit(r)
		return
	}
	fmt.Printf("%-44s %7.1f ns/packet  %7.2f M/s  spread %4.0f %%", r.Name, r.NS, r.PPS/1e6, 100*r.Spread)
	if r.BestNS > 0 {
		fmt.Printf("  best %5.1f", r.BestNS)
	}
	if r.GoalNS > 0 {
		fmt.Printf("  goal %4.0f", r.GoalNS)
	}
	if r.Against != "" {
		fmt.Printf("  %s %.1f ns, ratio %.2f", r.Against, r.AgainstNS, r.Ratio)
	}
	if r.ReadyNS > 0 {
		fmt.Printf("  ready %.1f ns", r.ReadyNS)
	}
	if r.LimitNS > 0 {
		fmt.Printf("  %.1f GB/s, %.0f %% of the limit", r.GBs, 100*r.LimitNS/r.BestNS)
	}
	if r.IPsecMBNS > 0 {
		fmt.Printf("  ipsec-mb %.1f ns", r.IPsecMBNS)
	}
	if r.SecgwNS > 0 {
		fmt.Printf("  ipsec-secgw %.1f ns, best %.1f", r.SecgwNS, r.SecgwBestNS)
	}
	if r.SecgwPortNS > 0 {
		fmt.Printf(", its ports alone %.1f", r.SecgwPortNS)
	}
	if r.Note != "" {
		fmt.Printf("  %s", r.Note)
	}
	fmt.Println()
}

// printUnit prints what is longer than a packet.
func printUnit(r Result) {
	fmt.Printf("%-36s %8.1f µs/%s  %7.0f /s  spread %4.0f %%", r.Name, r.NS/1e3, r.Unit, r.PPS, 100*r.Spread)
	if r.Against != "" {
		fmt.Printf("  %s %.1f µs, ratio %.2f, goal %.1f", r.Against, r.AgainstNS/1e3, r.Ratio, r.GoalNS/1e3)
	}
	fmt.Println("  " + r.Note)
}

// printTimes prints what takes now longer, now shorter.
func printTimes(r Result) {
	fmt.Printf("%-46s best %7.2f ms, median %7.2f, p99 %7.2f of %d  (%s: %.2f ms)  %s\n", r.Name, r.BestNS/1e6, r.NS/1e6, r.P99NS/1e6, r.Samples, r.Against, r.AgainstNS/1e6, r.Note)
}

// goamd64 is the instruction set level that the binary was built for.
func goamd64() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "GOAMD64" {
			return s.Value
		}
	}
	return ""
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

// timings are the rounds of two measurements, in ns per packet.
type timings struct {
	a, b         float64 // medians
	bestA, bestB float64
	spread       float64 // of the first: (largest - smallest) / median
}

// measureEach measures those cases whose name is asked for.
func measureEach[C interface{ name() string }](cases []C, o options, report func(Result), measure func(C, bool) (Result, error)) error {
	for _, c := range cases {
		if !strings.Contains(c.name(), o.only) {
			continue
		}
		r, err := measure(c, o.quick)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name(), err)
		}
		report(r)
	}
	return nil
}

// leastOf is a contender of rounds: the fastest of some passes. An error is left in failed.
func leastOf(passes int, failed *error, pass func() (float64, error)) func() float64 {
	return func() float64 {
		least := 1e9
		for range passes {
			ns, err := pass()
			if err != nil {
				*failed = err
			}
			least = min(least, ns)
		}
		return least
	}
}

// rounds interleaves the two measurements, so that a change of the machine's speed meets both.
func rounds(n int, a, b func() float64) timings {
	var as, bs []float64
	for range n {
		as = append(as, a())
		bs = append(bs, b())
	}
	slices.Sort(as)
	slices.Sort(bs)
	return timings{as[n/2], bs[n/2], as[0], bs[0], (as[n-1] - as[0]) / as[n/2]}
}
