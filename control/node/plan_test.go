package node

import (
	"reflect"
	"strings"
	"testing"
)

func TestPlanGivesEveryQueueToExactlyOneWorker(t *testing.T) {
	type q = QueueID
	for _, c := range []struct {
		name    string
		queues  [][]int
		cpus    []int
		allowed []int
		want    []WorkerPlan
		idle    []int
	}{
		{"one port, one queue, auto", [][]int{{0}}, nil, []int{0, 1, 2},
			[]WorkerPlan{{0, []q{{0, 0}}}}, nil},
		{"auto takes as many cores as the port with the most queues", [][]int{{0, 1}, {0}}, nil, []int{4, 5, 6, 7},
			[]WorkerPlan{{4, []q{{0, 0}, {1, 0}}}, {5, []q{{0, 1}}}}, nil},
		{"auto takes no more cores than there are", [][]int{{0, 1, 2, 3}}, nil, []int{0, 1},
			[]WorkerPlan{{0, []q{{0, 0}, {0, 2}}}, {1, []q{{0, 1}, {0, 3}}}}, nil},
		{"equal ports need no hand-over", [][]int{{0, 1}, {0, 1}}, []int{1, 0}, []int{0, 1},
			[]WorkerPlan{{1, []q{{0, 0}, {1, 0}}}, {0, []q{{0, 1}, {1, 1}}}}, nil},
		{"a core without a queue gets no worker", [][]int{{0}, {0}}, []int{2, 3}, []int{2, 3},
			[]WorkerPlan{{2, []q{{0, 0}, {1, 0}}}}, []int{3}},
		{"listed queues keep their numbers", [][]int{{1, 3}}, []int{0, 1, 2, 3}, []int{0, 1, 2, 3},
			[]WorkerPlan{{1, []q{{0, 1}}}, {3, []q{{0, 3}}}}, []int{0, 2}},
	} {
		p, err := MakePlan(c.queues, c.cpus, c.allowed)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !reflect.DeepEqual(p.Workers, c.want) || !reflect.DeepEqual(p.Idle, c.idle) {
			t.Errorf("%s: %+v, idle %v; want %+v, idle %v", c.name, p.Workers, p.Idle, c.want, c.idle)
		}
	}
}

func TestPlanRefusesCoresThatAreNotOurs(t *testing.T) {
	_, err := MakePlan([][]int{{0}}, []int{0, 7, 9}, []int{0, 1})
	if err == nil || !strings.Contains(err.Error(), "core 7, 9 is not among those that this process may use (0, 1)") {
		t.Errorf("error %v", err)
	}
	if _, err := MakePlan([][]int{{0}}, nil, nil); err == nil {
		t.Error("no core at all was accepted")
	}
}

// A part must hold everything that can be outside the free list at once, whatever the plan.
func TestPartsHoldWhatIsInFlight(t *testing.T) {
	for queues := 1; queues <= 8; queues++ {
		p := Plan{Workers: []WorkerPlan{{Queues: make([]QueueID, queues)}, {Queues: make([]QueueID, 1)}}}
		for _, ring := range []int{64, 2048, 4096} {
			n := p.framesPerPart(ring)
			need := queues*2*ring + handOverFrames + batchFrames + fragmentFrames
			if n < need || n >= 2*need || n&(n-1) != 0 {
				t.Errorf("%d queues with rings of %d: %d frames for %d", queues, ring, n, need)
			}
		}
	}
}
