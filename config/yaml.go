package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// decoder collects the mistakes and positions of one file.
type decoder struct {
	file   string
	errs   Errors
	where  map[string]position
	inline string // where the first associations stand that have a key in the file itself

	ofFleet bool              // the document is one of a fleet
	noted   map[string][]byte // not nil: keys that are read are noted here (Fleet.Secrets)
	carried map[string][]byte // not nil: keys are taken from here
}

// failAt notes a mistake at a place that is not a value's own.
func (d *decoder) failAt(at position, path, format string, args ...any) {
	d.errs = append(d.errs, d.errorAt(at, path, withoutKeys(fmt.Sprintf(format, args...))))
}

var longHex = regexp.MustCompile(`[0-9A-Fa-f]{24,}`)

// withoutKeys shortens what may be a key that was written at a wrong place: messages go to logs.
func withoutKeys(s string) string {
	return longHex.ReplaceAllStringFunc(s, func(digits string) string {
		return fmt.Sprintf("%s... (%d digits, not shown)", digits[:2], len(digits))
	})
}

// value is one YAML value and where it stands.
type value struct {
	d        *decoder
	node     ast.Node
	path     string
	at       position
	unusable bool // its mistake has been noted, others follow from it
}

// fail notes a mistake in v.
func (v value) fail(format string, args ...any) {
	if !v.unusable {
		v.d.failAt(v.at, v.path, format, args...)
	}
}

// value wraps a node and remembers its position under its path. It notes
// values that are missing, and YAML's indirections: these would let one text
// stand at several places of the configuration, so that no position could be
// given for a mistake in it.
func (d *decoder) value(node ast.Node, path string) value {
	v := value{d: d, node: node, path: path, at: positionOf(node)}
	d.where[path] = v.at
	switch node.(type) {
	case *ast.NullNode:
		v.fail("has no value: give one, or remove it")
	case *ast.AnchorNode, *ast.AliasNode:
		v.fail("anchors and aliases (& and *) are not supported: write the value out")
	case *ast.TagNode:
		v.fail("tags (!) are not supported: write the value alone")
	default:
		return v
	}
	v.unusable = true
	return v
}

// positionOf returns where a node begins. The token of a block mapping is its
// first colon, so a mapping begins with its first key instead.
func positionOf(node ast.Node) position {
	switch n := node.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return positionOf(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return positionOf(n.Key)
	}
	token := node.GetToken()
	if token == nil || token.Position == nil {
		return position{line: 1, column: 1}
	}
	return position{line: token.Position.Line, column: token.Position.Column}
}

// document parses data as one YAML document and returns its value, or notes
// why there is none.
func (d *decoder) document(data []byte) (value, bool) {
	text := strings.TrimPrefix(string(data), "\ufeff") // byte order mark: YAML 1.2.2, 5.2
	start := position{line: 1, column: 1}
	if at, ok := invalidUTF8(text); ok {
		d.failAt(at, "", "a byte that is not UTF-8: save the file as UTF-8")
		return value{}, false
	}
	file, err := parser.ParseBytes([]byte(text), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.failSyntax(err)
		return value{}, false
	}
	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil {
			bodies = append(bodies, doc.Body)
		}
	}
	switch {
	case len(bodies) == 0:
		if d.ofFleet {
			d.failAt(start, "", "the document is empty: `tunnels: []` takes all tunnels away")
			return value{}, false
		}
		d.failAt(start, "", "the file is empty: it needs interfaces at least")
		return value{}, false
	case len(bodies) > 1:
		d.failAt(positionOf(bodies[1]), "", "a second YAML document: put everything into one, without a line of ---")
		return value{}, false
	}
	return d.value(bodies[0], ""), true
}

// failSyntax notes what the YAML parser could not read. It stops at the first.
func (d *decoder) failSyntax(err error) {
	at, message := position{line: 1, column: 1}, err.Error()
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) {
		message = syntax.Message
		if syntax.Token != nil && syntax.Token.Position != nil {
			at = position{line: syntax.Token.Position.Line, column: syntax.Token.Position.Column}
		}
	}
	if strings.ContainsRune(message, '\t') {
		message = "a tab: indent with spaces"
	}
	d.failAt(at, "", "not valid YAML: %s", message)
}

// invalidUTF8 returns the place of the first byte that is no UTF-8.
func invalidUTF8(text string) (position, bool) {
	at := position{line: 1, column: 1}
	for i, r := range text {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(text[i:]); size == 1 {
				return at, true
			}
		}
		at.column++
		if r == '\n' {
			at = position{line: at.line + 1, column: 1}
		}
	}
	return position{}, false
}

// schema is what a mapping may hold.
type schema struct {
	fields []string
	// refused explains fields that are no typing mistakes: those that a later
	// version will have, and names that other products use.
	refused map[string]string
}

// fields is a mapping whose keys have been checked against a schema.
type fields struct {
	value
	values map[string]value
	given  map[string]bool // also fields without a usable value, and those whose names are misspelled
}

// mapping returns v's fields, and notes unknown and repeated ones.
func (v value) mapping(s schema) (fields, bool) {
	f := fields{v, map[string]value{}, map[string]bool{}}
	node, ok := v.node.(ast.MapNode)
	if !ok {
		v.fail("must be a mapping with %s, got %s", oneOf("or", s.fields), v)
		return f, false
	}
	first := map[string]position{}
	for i := node.MapRange(); i.Next(); {
		name, at, ok := v.key(i.Key())
		if !ok {
			continue
		}
		path := join(v.path, name)
		if before, twice := first[name]; twice {
			v.d.failAt(at, path, "given twice, first on %s: remove one", before)
			continue
		}
		first[name] = at
		f.add(s, name, at, i.Value())
	}
	return f, true
}

// key returns the text of a mapping's key.
func (v value) key(node ast.MapKeyNode) (string, position, bool) {
	at := positionOf(node)
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, at, true
	case *ast.MergeKeyNode:
		v.d.failAt(at, v.path, "merge keys (<<) are not supported: write the fields out")
	case *ast.MappingKeyNode:
		v.d.failAt(at, v.path, "a complex key (?): a field's name is a plain word")
	default:
		v.d.failAt(at, v.path, "unknown field %s: the names of fields are words", describe(node))
	}
	return "", at, false
}

// add puts one field into f, or notes why it cannot stand there.
func (f fields) add(s schema, name string, at position, node ast.Node) {
	path := join(f.path, name)
	if why, ok := s.refused[name]; ok {
		f.d.failAt(at, path, "%s", why)
		return
	}
	if !slices.Contains(s.fields, name) {
		f.d.failAt(at, f.path, "unknown field %s: %s", quote(name), suggest(name, s.fields))
		if meant, ok := nearest(name, s.fields); ok {
			f.given[meant] = true
		}
		return
	}
	f.given[name] = true
	if v := f.d.value(node, path); !v.unusable {
		f.values[name] = v
	}
}

// get returns a field that has a value.
func (f fields) get(name string) (value, bool) {
	v, ok := f.values[name]
	return v, ok
}

// need is get for a field that must be there.
func (f fields) need(name, hint string) (value, bool) {
	if !f.given[name] {
		f.fail("%s is missing: write %s", name, hint)
	}
	return f.get(name)
}

// list returns the elements of a sequence, as many as the file has.
func (v value) list(of string) ([]value, bool) {
	node, ok := v.node.(*ast.SequenceNode)
	if !ok {
		v.fail("must be a list of %s, got %s", of, v)
		return nil, false
	}
	elements := make([]value, len(node.Values))
	for i, n := range node.Values {
		elements[i] = v.d.value(n, v.path+"["+strconv.Itoa(i)+"]")
	}
	return elements, true
}

// String describes v for an error message.
func (v value) String() string { return describe(v.node) }

func describe(node ast.Node) string {
	switch n := node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode:
		return quote(n.Value)
	case *ast.LiteralNode:
		return quote(n.Value.Value)
	case *ast.NullNode:
		return "nothing"
	}
	if token := node.GetToken(); token != nil {
		return plain(token.Value)
	}
	return "something else"
}

// quote returns s in quotes and not longer than a line of a terminal.
func quote(s string) string {
	const most = 64
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most]) + "..."
	}
	return strconv.Quote(s)
}

// plain returns s without quotes if it needs none: an error is one line,
// whatever the file has.
func plain(s string) string {
	if quoted := quote(s); quoted != `"`+s+`"` {
		return quoted
	}
	return s
}

// join appends a field's name to a path.
func join(path, name string) string {
	name = plain(name)
	if path == "" {
		return name
	}
	return path + "." + name
}
