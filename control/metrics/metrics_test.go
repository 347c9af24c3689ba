package metrics

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"causeway/control/cluster"
	"causeway/control/health"
	"causeway/control/health/bfd"
	"causeway/control/ike"
	"causeway/control/pmtu"
	"causeway/control/routes"
	"causeway/control/tun"
	"causeway/pipeline"
	"causeway/pipeline/memport"
	"causeway/xsk"
)

// source is a node with one worker over memory and one tunnel.
func source(t *testing.T) Source {
	t.Helper()
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: 1024})
	if err != nil {
		t.Fatal(err)
	}
	e, err := pipeline.NewEngine(pipeline.EngineConfig{UMEM: u, Ports: 1, Workers: []pipeline.WorkerConfig{
		{CPU: -1, Queues: []pipeline.QueueConfig{{Queue: memport.New(u, 64), FillSize: 64}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return Source{
		Engine: e,
		Tunnels: func() []Tunnel {
			return []Tunnel{{0, "cust-a", "acme", 1400, true, &health.Report{State: health.Degraded, Answered: 9, Lost: 2, RTT: 20 * time.Millisecond}, &bfd.Report{State: bfd.Up}, &Device{tun.InterfaceStats{ToKernel: 5, FromKernel: 6, Refused: 1, Unsent: 2}, 3}}, {1, "cust-b", "acme", 1476, false, nil, nil, nil}}
		},
		SAs: func() []SA {
			return []SA{{Tunnel: "cust-a", Encryption: "aes128gcm16", SPI: 0x1001, Inbound: true}, {Tunnel: "cust-a", Encryption: "aes128gcm16", SPI: 0x2001, Sequence: 7}}
		},
		IKE: func() ike.Stats { return ike.New(ike.Options{}).Stats() },
		Cluster: func() cluster.Status {
			return cluster.Status{Nodes: 3, Compared: 1, Replicas: []cluster.Replica{{Current: true}, {Offline: true, Lag: 4}, {Lag: 2}}}
		},
		Applied: func() (newest, runs uint64) { return 3, 2 },
		Routes:  func() routes.Stats { return routes.Stats{Routes4: 3, Resyncs: 2} },
		PathMTU: func() map[pmtu.Verdict]uint64 { return map[pmtu.Verdict]uint64{pmtu.Lowered: 4} },
		TUN:     func() tun.Stats { return tun.Stats{Written: 5} },
		Notices: func() (delivered, failed, dropped uint64) { return 4, 2, 1 },
		Analytics: func() Analytics {
			return Analytics{Samples: 9, Thinned: 4, Unwritten: 3, LeftOut: 8, Shift: 2, Attacks: map[string]uint64{"SYN flood": 5}, Active: 1,
				Buffer:     &Buffer{Bytes: 6, Limit: 7, Sent: 8, Lost: 9, Refused: 10, Away: true},
				Collectors: []Collector{{"sflow", "192.0.2.9:6343", 7, 6}}}
		},
		NotReady: func() []string { return nil },
		Version:  "test", Node: "edge-1", Datacenter: "ams1", Region: "WEUR",
	}
}

// Names, units, types and HELP texts follow Prometheus's rules.
func TestMetricsAreLinted(t *testing.T) {
	problems, err := testutil.CollectAndLint(newCollector(source(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// The linter sees only what a node without AF_XDP sockets shows; the sockets' metrics are linted with made-up numbers.
func TestSocketMetricsAreLinted(t *testing.T) {
	problems, err := testutil.CollectAndLint(sockets{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

type sockets struct{}

func (sockets) Describe(chan<- *prometheus.Desc) {}
func (sockets) Collect(ch chan<- prometheus.Metric) {
	out(ch).socket("eth0", "0", xsk.Stats{RxDropped: 1, RingSize: 2048})
	out(ch).gauge(portInfo, 1, "eth0", "copy", "veth")
	out(ch).counter(portSteered, 1, "eth0", "gre", "worker")
}

func TestValues(t *testing.T) {
	want := `
# HELP causeway_tunnel_effective_mtu_bytes Largest inner packet that a tunnel carries now: its configured MTU or what its path was learned to carry.
# TYPE causeway_tunnel_effective_mtu_bytes gauge
causeway_tunnel_effective_mtu_bytes{account="acme",tunnel="cust-a"} 1400
causeway_tunnel_effective_mtu_bytes{account="acme",tunnel="cust-b"} 1476
# HELP causeway_tunnel_health_notices_total Changes of tunnels' states that were to be posted to the webhook: delivered, failed (a try, which is made again), dropped.
# TYPE causeway_tunnel_health_notices_total counter
causeway_tunnel_health_notices_total{result="delivered"} 4
causeway_tunnel_health_notices_total{result="dropped"} 1
causeway_tunnel_health_notices_total{result="failed"} 2
# HELP causeway_tunnel_bfd_up Whether this node's session of BFD with the tunnel's router is up. Not there where another node has it.
# TYPE causeway_tunnel_bfd_up gauge
causeway_tunnel_bfd_up{account="acme",tunnel="cust-a"} 1
# HELP causeway_tunnel_health_probes_total Probes of a tunnel, by how they ended: answered, lost.
# TYPE causeway_tunnel_health_probes_total counter
causeway_tunnel_health_probes_total{account="acme",result="answered",tunnel="cust-a"} 9
causeway_tunnel_health_probes_total{account="acme",result="lost",tunnel="cust-a"} 2
# HELP causeway_tunnel_health_rtt_seconds How long answers to the probes of a tunnel take, smoothed. Not there before the first answer.
# TYPE causeway_tunnel_health_rtt_seconds gauge
causeway_tunnel_health_rtt_seconds{account="acme",tunnel="cust-a"} 0.02
# HELP causeway_tunnel_health_state State of a tunnel that is probed: 1 healthy, 0.5 degraded, 0 down.
# TYPE causeway_tunnel_health_state gauge
causeway_tunnel_health_state{account="acme",tunnel="cust-a"} 0.5
# HELP causeway_tunnel_routed 1 while a route leads to the tunnel's customer endpoint.
# TYPE causeway_tunnel_routed gauge
causeway_tunnel_routed{account="acme",tunnel="cust-a"} 1
causeway_tunnel_routed{account="acme",tunnel="cust-b"} 0
# HELP causeway_route_resyncs_total Complete readings of the kernel's tables, the first one included.
# TYPE causeway_route_resyncs_total counter
causeway_route_resyncs_total 2
# HELP causeway_node_info 1, with the node's name and place as labels.
# TYPE causeway_node_info gauge
causeway_node_info{datacenter="ams1",node="edge-1",region="WEUR"} 1
`
	err := testutil.CollectAndCompare(newCollector(source(t)), strings.NewReader(want),
		"causeway_tunnel_effective_mtu_bytes", "causeway_tunnel_health_state", "causeway_tunnel_health_probes_total", "causeway_tunnel_health_rtt_seconds", "causeway_tunnel_bfd_up", "causeway_tunnel_health_notices_total", "causeway_tunnel_routed", "causeway_route_resyncs_total", "causeway_node_info")
	if err != nil {
		t.Error(err)
	}
}

func TestEveryDropReasonIsShown(t *testing.T) {
	n := testutil.CollectAndCount(newCollector(source(t)), "causeway_dropped_packets_total")
	if want := len(pipeline.AllReasons()); n != want {
		t.Errorf("%d series for %d reasons: two reasons of a stage share a label", n, want)
	}
}

func TestHistogramOfPollGaps(t *testing.T) {
	var gaps [pipeline.PollGapBuckets]uint64
	gaps[0], gaps[1], gaps[len(gaps)-1] = 10, 5, 1
	count, sum, buckets := histogram(&gaps)
	if count != 16 || len(buckets) != len(gaps)-1 {
		t.Errorf("count %d, %d buckets", count, len(buckets))
	}
	if a, b := buckets[4096e-9], buckets[8192e-9]; a != 10 || b != 15 {
		t.Errorf("buckets are not cumulative: %d, %d", a, b)
	}
	if last := float64(pipeline.PollGapBound(len(gaps)-1)) / 1e9; sum < 0.75*last || sum > last {
		t.Errorf("sum %v", sum)
	}
}

func TestPages(t *testing.T) {
	s := source(t)
	var why []string
	s.NotReady = func() []string { return why }
	h := NewHandler(s)
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	if code, body := get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: %d %s", code, body)
	}
	why = []string{"draining", "worker 1 has not polled for 400ms"}
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "worker 1 has not polled") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d although the process answers", code)
	}
	if code, body := get("/metrics"); code != http.StatusOK || !strings.Contains(body, "causeway_ready 0") || !strings.Contains(body, "go_gc_duration_seconds") {
		t.Errorf("/metrics: %d", code)
	}
	if code, _ := get("/"); code != http.StatusNotFound {
		t.Errorf("/: %d", code)
	}
}

// Dashboards and alerts are written against these names: none goes away. -update is not offered on purpose.
func TestNamesAreAContract(t *testing.T) {
	text, err := os.ReadFile("collector.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`desc\("(\w+)", "`).FindAllStringSubmatch(string(text), -1) {
		names = append(names, "causeway_"+m[1])
	}
	slices.Sort(names)
	golden, err := os.ReadFile(filepath.Join("testdata", "names.txt"))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(string(golden))
	for _, n := range want {
		if !slices.Contains(names, n) {
			t.Errorf("%s is gone", n)
		}
	}
	for _, n := range names {
		if !slices.Contains(want, n) {
			t.Errorf("%s is new: add it to testdata/names.txt", n)
		}
	}
}

// A node that is alone has of the cluster's metrics the one of what was applied.
func TestAloneHasNoCluster(t *testing.T) {
	s := source(t)
	s.Cluster = nil
	reg := prometheus.NewRegistry()
	reg.MustRegister(newCollector(s))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var of []string
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "causeway_cluster_") {
			of = append(of, f.GetName())
		}
	}
	if len(of) != 1 || of[0] != "causeway_cluster_fleet_serial" {
		t.Errorf("it has %v", of)
	}
}
