package node

import (
	"fmt"
	"math/bits"
	"strings"

	"golang.org/x/sys/unix"

	"causeway/config"
	"causeway/xsk"
)

// A Plan says which worker owns which queue.
type Plan struct {
	Workers []WorkerPlan
	Idle    []int // listed cores that no queue is left for
}

// A WorkerPlan is one worker: its core, and its queues by port.
type WorkerPlan struct {
	CPU    int
	Queues []QueueID
}

// A QueueID names one queue of one port.
type QueueID struct {
	Port  int // index of the port in the configuration
	Queue int // number of the queue on the interface
}

// MakePlan gives each queue of each port to exactly one worker: queue q goes to worker q modulo their number. With
// that, worker i has a queue of every port where the ports have equally many, and frames need no hand-over.
//
// queues lists the queues of each port. cpus is the configuration's list; nil takes as many of the allowed cores as
// the port with the most queues can keep busy.
func MakePlan(queues [][]int, cpus, allowed []int) (Plan, error) {
	if cpus == nil {
		most := 0
		for _, q := range queues {
			most = max(most, len(q))
		}
		cpus = allowed[:min(most, len(allowed))]
	} else if bad := missing(allowed, cpus); len(bad) > 0 {
		return Plan{}, fmt.Errorf("workers.cpus: core %s is not among those that this process may use (%s): "+
			"change the list, or the process's cpuset", list(bad), list(allowed))
	}
	if len(cpus) == 0 {
		return Plan{}, fmt.Errorf("workers.cpus: no core is left for a worker")
	}
	workers := make([]WorkerPlan, len(cpus))
	for i, cpu := range cpus {
		workers[i].CPU = cpu
	}
	for port, numbers := range queues {
		for _, q := range numbers {
			w := &workers[q%len(workers)]
			w.Queues = append(w.Queues, QueueID{port, q})
		}
	}
	var p Plan
	for _, w := range workers {
		if len(w.Queues) == 0 {
			p.Idle = append(p.Idle, w.CPU)
			continue
		}
		p.Workers = append(p.Workers, w)
	}
	return p, nil
}

// PlanOf makes the plan of a configuration for this machine's interfaces and the cores that this process may use.
func PlanOf(c *config.Config) (Plan, error) {
	queues := make([][]int, len(c.Interfaces))
	for i, cfg := range c.Interfaces {
		ifi, err := xsk.LookupInterface(cfg.Name)
		if err != nil {
			return Plan{}, fmt.Errorf("interfaces[%d]: %w", i, err)
		}
		queues[i] = queuesOf(cfg, ifi)
	}
	allowed, err := allowedCPUs()
	if err != nil {
		return Plan{}, err
	}
	return MakePlan(queues, c.Workers.CPUs, allowed)
}

// Frames that a worker needs beside those on its rings.
const (
	handOverFrames = 2 * 1024 // on their way to another worker and home
	batchFrames    = 4 * 64   // in its hands: a batch, what was made of it, and the pieces of fragmentation
	fragmentFrames = 2048     // held until the rest of their datagrams has come
)

// framesPerPart is the size of each worker's part of the UMEM: what the worker with the most queues needs, as a
// power of two.
func (p Plan) framesPerPart(ring int) int {
	most := 0
	for _, w := range p.Workers {
		most = max(most, len(w.Queues))
	}
	// A fill ring of frames to receive into, which become those on the RX ring, and a TX ring of frames that leave.
	need := most*2*ring + handOverFrames + batchFrames + fragmentFrames
	return 1 << bits.Len(uint(need-1))
}

// queuesOf returns the queues that the workers own on an interface.
func queuesOf(c config.Interface, ifi *xsk.Interface) []int {
	if c.Queues != nil {
		return c.Queues
	}
	all := make([]int, ifi.RxQueues)
	for q := range all {
		all[q] = q
	}
	return all
}

// allowedCPUs lists the cores that the process may run on.
func allowedCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("the cores that this process may use are not known: %w", err)
	}
	var cpus []int
	for cpu := range len(set) * bits.UintSize {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// missing returns the elements of list that are not in set.
func missing(set, list []int) []int {
	in := map[int]bool{}
	for _, e := range set {
		in[e] = true
	}
	var out []int
	for _, e := range list {
		if !in[e] {
			out = append(out, e)
		}
	}
	return out
}

func list(numbers []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(numbers), " ", ", "), "[]")
}
