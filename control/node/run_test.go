package node

import (
	"context"
	"strings"
	"testing"
	"time"

	"causeway/pipeline"
	"causeway/pipeline/memport"
	"causeway/xsk"
)

// memoryEngine has one worker over memory, which sleeps like one over sockets.
func memoryEngine(t *testing.T) *pipeline.Engine {
	t.Helper()
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: 256})
	if err != nil {
		t.Fatal(err)
	}
	e, err := pipeline.NewEngine(pipeline.EngineConfig{UMEM: u, Ports: 1, Workers: []pipeline.WorkerConfig{{
		CPU: -1, Queues: []pipeline.QueueConfig{{Queue: memport.New(u, 64), FillSize: 64}}, Wait: time.Sleep,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return e
}

func TestReadyOnlyWhileEverythingIs(t *testing.T) {
	n := &Node{engine: memoryEngine(t)}
	not := func(want ...string) {
		t.Helper()
		got := strings.Join(n.NotReady(), "; ")
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("not ready because of %q, want %q", got, w)
			}
		}
		if len(want) == 0 && got != "" {
			t.Errorf("not ready because of %q", got)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.engine.Run(ctx) }()
	time.Sleep(2 * pollLimit) // long asleep in Wait: that is no fault
	not("the kernel's routes are not loaded yet")
	n.loaded.Store(true)
	not()
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	time.Sleep(pollLimit + 50*time.Millisecond) // a worker that hangs looks like one that has stopped
	not("worker 0 has not polled for")
	n.draining.Store(true)
	not("draining", "worker 0")
}

func TestTheFirstErrorStopsAll(t *testing.T) {
	ctx, fail := context.WithCancel(context.Background())
	g := &group{fail: fail}
	g.start("good", func() error { <-ctx.Done(); return nil })
	g.start("bad", func() error { return context.DeadlineExceeded })
	g.wg.Wait()
	if g.err == nil || g.err.Error() != "bad: context deadline exceeded" {
		t.Errorf("error %v", g.err)
	}
}
