package config

import (
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// A Scope says which nodes have a route: those of a region or a data center
// that it names, by node.region and node.datacenter, whether in capitals or
// not. The zero Scope is all.
// Scopes that say the same are equal.
type Scope struct {
	regions, datacenters string // sorted, separated by blanks
}

var scopeSchema = schema{fields: []string{"regions", "datacenters"}}

// scope decodes one. It must name something: a route that no node has is a
// mistake.
func (v value) scope() (s Scope) {
	f, ok := v.mapping(scopeSchema)
	if !ok {
		return s
	}
	for field, to := range map[string]*string{"regions": &s.regions, "datacenters": &s.datacenters} {
		if v, ok := f.get(field); ok {
			*to = v.names()
		}
	}
	if !v.node.(ast.MapNode).MapRange().Next() {
		v.fail("names nothing: write regions or datacenters, or leave scope out for all nodes")
	}
	return s
}

// names decodes a list of names, at least one, into one string.
func (v value) names() string {
	elements, ok := v.list("names")
	if ok && len(elements) == 0 {
		v.fail("is empty: write one name at least, or leave the field out")
	}
	var list []string
	for _, e := range elements {
		name, ok := e.name()
		if ok && slices.Contains(list, name) {
			e.fail("%s stands there twice", name)
		}
		list = append(list, name)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// covers reports whether a node is in the scope.
func (s Scope) covers(n *Node) bool {
	in := func(list, name string) bool {
		return name != "" && slices.ContainsFunc(strings.Fields(list), func(s string) bool { return strings.EqualFold(s, name) })
	}
	return s == Scope{} || in(s.regions, n.Region) || in(s.datacenters, n.Datacenter)
}

// String is the scope for people, "" for all nodes.
func (s Scope) String() string {
	return strings.Join(slices.Concat(strings.Fields(s.regions), strings.Fields(s.datacenters)), ", ")
}
