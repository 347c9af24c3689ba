package main

import (
	"strings"
	"testing"
	"time"
)

// TestRootInterfaceRemoved: a node whose interface has been removed ends, so that its service manager starts one that
// takes the new interface, and does not go on saying that it is ready.
func TestRootInterfaceRemoved(t *testing.T) {
	b := newBed(t, 2, 1)
	b.configure(custA)
	d := b.run()
	b.node.MustRun("ip", "link", "del", "dev", b.ports[0])
	if status := exitStatus(d.Wait(10 * time.Second)); status != exitFailed {
		t.Errorf("exit status %d, want %d", status, exitFailed)
	}
	if want := "interface " + b.ports[0]; !strings.Contains(d.Log(), want) || !strings.Contains(d.Log(), "has been removed") {
		t.Errorf("the log does not say what happened:\n%s", d.Log())
	}
}

// TestRootTunDeviceIsRepaired: somebody sets the TUN device down and up, which takes addresses and routes from it.
func TestRootTunDeviceIsRepaired(t *testing.T) {
	b := newBed(t, 2, 1)
	b.echo()
	b.configure(custA)
	d := b.run()
	b.node.MustRun("ip", "link", "set", "dev", "causeway", "down")
	b.node.MustRun("ip", "link", "set", "dev", "causeway", "up")
	d.WaitLog("they were put back", 10*time.Second)
	if out := b.node.MustRun("ip", "-o", "addr", "show", "dev", "causeway"); !strings.Contains(out, endpoint+"/32") {
		t.Errorf("the endpoint's address is missing:\n%s", out)
	}
	if out := b.node.MustRun("ip", "route", "show", "dev", "causeway"); !strings.Contains(out, "203.0.113.0/25") {
		t.Errorf("the route to the customer is missing:\n%s", out)
	}
}
