package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// set is one kernel map whose keys are what matters. Only its Filter writes the
// map, so have always equals its content.
type set[K comparable] struct {
	name  string
	m     *ebpf.Map
	limit int
	have  map[K]struct{}
	key   func(K) []byte
}

func newSet[K comparable](name string, m *ebpf.Map, key func(K) []byte) set[K] {
	// The other half of the map is room for a new set beside the old one.
	return set[K]{name: name, m: m, limit: int(m.MaxEntries()) / 2, have: make(map[K]struct{}), key: key}
}

// replace makes two sets equal to what is wanted. It adds to both before it
// deletes from either, so that no packet misses an entry that was and is wanted.
func replace[K comparable](a *set[K], wantA map[K]struct{}, b *set[K], wantB map[K]struct{}) error {
	if err := errors.Join(a.check(wantA), b.check(wantB)); err != nil {
		return err
	}
	if err := errors.Join(a.add(wantA), b.add(wantB)); err != nil {
		return err
	}
	return errors.Join(a.keep(wantA), b.keep(wantB))
}

func (s *set[K]) check(want map[K]struct{}) error {
	if len(want) > s.limit {
		return fmt.Errorf("bpf: %d %s: at most %d fit the steering program; aggregate them", len(want), s.name, s.limit)
	}
	return nil
}

// add puts what is missing into the map.
func (s *set[K]) add(want map[K]struct{}) error {
	for k := range want {
		if _, ok := s.have[k]; ok {
			continue
		}
		if err := s.m.Put(s.key(k), []byte{1}); err != nil {
			return fmt.Errorf("bpf: add %v to the %s: %w", k, s.name, explain(err))
		}
		s.have[k] = struct{}{}
	}
	return nil
}

// keep deletes what is no longer wanted.
func (s *set[K]) keep(want map[K]struct{}) error {
	for k := range s.have {
		if _, ok := want[k]; ok {
			continue
		}
		if err := s.m.Delete(s.key(k)); err != nil {
			return fmt.Errorf("bpf: delete %v from the %s: %w", k, s.name, explain(err))
		}
		delete(s.have, k)
	}
	return nil
}
