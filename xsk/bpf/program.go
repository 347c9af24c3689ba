package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
)

// maxQueues is far above what any driver offers; the kernel counts queues in 16 bits.
const maxQueues = 1 << 16

// Program is the steering program of one port: the loaded program, one socket
// slot per queue, the counters and the link to the interface. The maps of its
// Filter are shared. Not safe for concurrent use, except for Counters.
type Program struct {
	prog     *ebpf.Program
	sockets  *ebpf.Map
	counters *ebpf.Map
	link     link.Link // nil until Attach
}

// NewProgram loads the program for a port with that many receive queues. It
// does nothing until Attach. The caller closes it.
func (f *Filter) NewProgram(queues int) (*Program, error) {
	if queues < 1 || queues > maxQueues {
		return nil, fmt.Errorf("bpf: program for %d queues: allowed are 1 to %d", queues, maxQueues)
	}
	spec := f.spec.Copy()
	spec.Maps[steerMapSockets].MaxEntries = uint32(queues)
	var loaded struct {
		Prog     *ebpf.Program `ebpf:"causeway_steer"`
		Sockets  *ebpf.Map     `ebpf:"sockets"`
		Counters *ebpf.Map     `ebpf:"counters"`
	}
	err := spec.LoadAndAssign(&loaded, &ebpf.CollectionOptions{MapReplacements: f.maps})
	if err != nil {
		if old := features.HaveProgramHelper(ebpf.XDP, asm.FnXdpLoadBytes); errors.Is(old, ebpf.ErrNotSupported) {
			return nil, fmt.Errorf("bpf: load the steering program: needs Linux 5.18 or newer: %w", err)
		}
		return nil, fmt.Errorf("bpf: load the steering program: %w", explain(err))
	}
	return &Program{prog: loaded.Prog, sockets: loaded.Sockets, counters: loaded.Counters}, nil
}

// SetSocket makes the AF_XDP socket fd the receiver of a queue, counted from 0.
// The kernel delivers only if the socket is bound to that queue of the interface
// the program is attached to; otherwise it drops the frame. The kernel keeps its
// own reference to the socket and forgets it when the socket is closed.
func (p *Program) SetSocket(queue, fd int) error {
	if err := p.checkQueue(queue); err != nil {
		return err
	}
	if err := p.sockets.Put(uint32(queue), uint32(fd)); err != nil {
		return fmt.Errorf("bpf: socket %d for queue %d: %w", fd, queue, explain(err))
	}
	return nil
}

// ClearSocket takes the socket of a queue away: its frames go to the kernel from
// then on. A queue without a socket is not an error.
func (p *Program) ClearSocket(queue int) error {
	if err := p.checkQueue(queue); err != nil {
		return err
	}
	if err := p.sockets.Delete(uint32(queue)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("bpf: clear the socket of queue %d: %w", queue, explain(err))
	}
	return nil
}

func (p *Program) checkQueue(queue int) error {
	if n := int(p.sockets.MaxEntries()); queue < 0 || queue >= n {
		return fmt.Errorf("bpf: queue %d: the program has queues 0 to %d", queue, n-1)
	}
	return nil
}

// Counters returns the packets of each class since the program was loaded. The
// sum without NoSocket is what the port received. Classes are read one after the
// other, so the sum is exact only while no traffic flows.
func (p *Program) Counters() (map[Class]uint64, error) {
	sums := make(map[Class]uint64, classes)
	for c := range Class(classes) {
		var perCPU []uint64
		if err := p.counters.Lookup(uint32(c), &perCPU); err != nil {
			return nil, fmt.Errorf("bpf: read the counter %s: %w", c, explain(err))
		}
		for _, n := range perCPU {
			sums[c] += n
		}
	}
	return sums, nil
}

// Close detaches the program from the interface, which then works as if the
// program had never run, and gives up the program and its own maps.
func (p *Program) Close() error {
	var errs []error
	if p.link != nil {
		errs = append(errs, p.link.Close())
		p.link = nil
	}
	return errors.Join(append(errs, p.prog.Close(), p.sockets.Close(), p.counters.Close())...)
}
