package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// unitRights reads the capabilities that the systemd unit grants, as setpriv spells them.
func unitRights(t *testing.T) []string {
	t.Helper()
	unit, err := os.ReadFile("../../scripts/systemd/causeway.service")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.*)$`).FindSubmatch(unit)
	if m == nil {
		t.Fatal("the unit has no CapabilityBoundingSet")
	}
	var rights []string
	for _, name := range strings.Fields(string(m[1])) {
		rights = append(rights, strings.ToLower(strings.TrimPrefix(name, "CAP_")))
	}
	return rights
}

// withRights is a command line for root with these capabilities alone, as the unit starts the daemon. CAP_IPC_LOCK
// stands for the unit's LimitMEMLOCK=infinity, which not every test machine lets us set.
func withRights(rights []string, command ...string) []string {
	set := "-all,+ipc_lock"
	for _, r := range rights {
		set += ",+" + r
	}
	return append([]string{"setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=" + set}, command...)
}

// The systemd unit's capabilities are enough, and none is too many.
func TestRootLeastRights(t *testing.T) {
	b := newBed(t, 2, 1)
	b.echo()
	b.configure(custA, custB)
	rights := unitRights(t)
	d := b.node.Start(withRights(rights, b.causeway, "run", "-c", b.file())...)
	d.WaitLog("msg=forwarding", 10*time.Second)
	b.peer("198.51.100.2", 42, "203.0.113.9").works(0)
	b.inet.MustRun("ping", "-c1", "-W2", endpoint)
	pingThroughTunnel(b)
	b.configure(custA)
	b.reload()
	if err := d.Stop(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if strings.Contains(d.Log(), "level=ERROR") {
		t.Errorf("something did not work:\n%s", d.Log())
	}

	for i, lacking := range rights {
		less := append(append([]string(nil), rights[:i]...), rights[i+1:]...)
		d := b.node.Start(withRights(less, b.causeway, "run", "-c", b.file())...)
		if status := exitStatus(d.Wait(10 * time.Second)); status != exitFailed {
			t.Errorf("without %s: status %d", lacking, status)
		}
		if !strings.Contains(d.Log(), "needs root, or the capabilities CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF") {
			t.Errorf("without %s it does not say what is needed:\n%s", lacking, d.Log())
		}
		b.free()
	}
}

func TestRootDoctorSeesWhatIsWrong(t *testing.T) {
	b := newBed(t, 2, 2)
	b.configureWith("workers: {cpus: [0, 1]}", custA)
	doctor := func() (string, int) {
		out, err := b.node.Run(b.causeway, "doctor", "-c", b.file())
		return out, exitStatus(err)
	}
	out, status := doctor()
	for _, want := range []string{
		"ok    kernel", "ok    rights", "ok    eth0 queues        2 receive, 2 transmit, driver veth", "warn  eth0 zero-copy",
		"warn  veth offloads", "(here eth0, eth1)", "ethtool -K PEER tx off tso off gso off txvlan off", "core 0, queues eth0/0 eth1/0", "core 1, queues eth0/1 eth1/1",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	if status != 0 {
		t.Errorf("status %d although everything works", status)
	}

	b.node.MustRun("ip", "link", "set", "eth1", "mtu", "3000")
	if out, status = doctor(); status != exitFailed || !strings.Contains(out, "fail  eth1 mtu") || !strings.Contains(out, "ip link set eth1 mtu 1500") {
		t.Errorf("a large mtu: status %d\n%s", status, out)
	}
	b.configureWith("interfaces: [{name: eth9}]", custA)
	if out, status = doctor(); status != exitFailed || !strings.Contains(out, "fail  eth9") {
		t.Errorf("no such interface: status %d\n%s", status, out)
	}
}
