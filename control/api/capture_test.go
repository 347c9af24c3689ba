package api

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// captureClient is a client of a daemon that answers with filled.
func captureClient(t *testing.T) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, filled{}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return NewClient(path)
}

func TestCaptureEvents(t *testing.T) {
	c := captureClient(t)
	var got []CaptureEvent
	take := func(e CaptureEvent) error { got = append(got, e); return nil }
	if err := c.Capture(t.Context(), CaptureRequest{Filter: "tcp", Packets: 3, Bytes: true, By: "a test"}, take); err != nil {
		t.Fatal(err)
	}
	want := []CaptureEvent{{Begun: &CaptureRequest{Filter: "tcp", Packets: 3, Bytes: true, By: "a test"}}, {Packet: new(fill[CapturedPacket]())},
		{Counts: new(fill[CaptureCounts]())}, {Ended: new(fill[CaptureEnd]())}}
	if !reflect.DeepEqual(got, want) {
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		t.Errorf("%s\nwant\n%s", a, b)
	}
	for filter, want := range map[string]string{"wrong": "word 1", "breaks": "it broke"} {
		if err := c.Capture(t.Context(), CaptureRequest{Filter: filter}, take); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", filter, err)
		}
	}
	full := errors.New("no space left")
	if err := c.Capture(t.Context(), CaptureRequest{}, func(CaptureEvent) error { return full }); err != full {
		t.Errorf("a client that wants no more: %v", err)
	}
}

// Whoever stops reading, or is cancelled, gets what came before at once and ends the daemon's part too.
func TestCaptureCancelled(t *testing.T) {
	c := captureClient(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	n := 0
	err := c.Capture(ctx, CaptureRequest{Filter: "waits"}, func(e CaptureEvent) error {
		if n++; e.Packet != nil { // flushed while the daemon waits
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || n < 2 {
		t.Errorf("%v after %d events", err, n)
	}
	if err := NewClient("/nowhere/s").Capture(t.Context(), CaptureRequest{}, nil); err == nil || !strings.Contains(err.Error(), "is causeway running?") {
		t.Error(err)
	}
}
