package graph

import (
	"strconv"
	"strings"
	"text/scanner"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

// The library parses, validates and executes queries, but does not show them. A document is the little that has to be known before:
// how much the query can ask for, and which of its variables have types of GraphQL's own.
type document struct {
	tokens     []token
	next       int
	depth      int
	operations []operation
	fragments  map[string][]selection
	builtin    []variable        // those of the type String, Int, Float or ID
	used       map[string]string // variables, and the argument that each is for
}

// An operation is a query, a mutation or a subscription. One without a name has none.
type operation struct {
	kind, name string
	set        []selection
}

// A variable is named in its definition, with its type.
type variable struct {
	name string
	kind token
}

type token struct {
	kind rune
	text string
	at   int // bytes from the start
}

// A selection is a field, a fragment's name, or (both empty) an inline fragment.
type selection struct {
	field, spread string
	inner         []selection
}

// maxNested is how deep selections and values may nest here; the schema ends at 16.
const maxNested = 64

const errUnread = refusal("the query could not be read")

// read takes a query apart. Its grammar is that of executable documents (GraphQL, October 2021, 2.2), loosely: what it lets pass the
// library still refuses.
func read(query string) (d *document, err error) {
	d = &document{fragments: map[string][]selection{}, used: map[string]string{}}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case refusal:
			d, err = nil, r
		default:
			panic(r)
		}
	}()
	d.scan(query)
	for d.peek().kind != scanner.EOF {
		d.definition()
	}
	return d, nil
}

// scan splits the text as the library does, with the same scanner.
func (d *document) scan(query string) {
	var s scanner.Scanner
	s.Init(strings.NewReader(query))
	s.Mode = scanner.ScanIdents | scanner.ScanInts | scanner.ScanFloats | scanner.ScanStrings
	s.Error = func(*scanner.Scanner, string) { panic(errUnread) }
	for {
		t := token{kind: s.Scan(), text: s.TokenText(), at: s.Offset}
		switch {
		case t.kind == ',':
			continue
		case t.kind == '#':
			for r := s.Next(); r != '\n' && r != '\r' && r != scanner.EOF; {
				r = s.Next()
			}
			continue
		case t.kind == scanner.String && t.text == `""` && s.Peek() == '"':
			blockString(&s)
		case t.kind == scanner.Int:
			if _, err := strconv.ParseInt(t.text, 10, 64); err != nil { // the library would panic
				panic(wrong(t.text, "a whole number below 2^63"))
			}
		}
		d.tokens = append(d.tokens, t)
		if t.kind == scanner.EOF {
			return
		}
	}
}

// blockString skips to the end of a string in triple quotes, of which the scanner took two for an empty string.
func blockString(s *scanner.Scanner) {
	s.Next()
	for quotes := 0; quotes < 3; {
		switch s.Next() {
		case '"':
			quotes++
		case scanner.EOF:
			panic(errUnread)
		default:
			quotes = 0
		}
	}
}

func (d *document) peek() token { return d.tokens[d.next] }

// take returns the next token, which must be of that kind.
func (d *document) take(kind rune) token {
	t := d.peek()
	if t.kind != kind {
		panic(errUnread)
	}
	d.next++
	return t
}

// maybe takes a token of that kind if it comes.
func (d *document) maybe(kind rune) bool {
	if d.peek().kind != kind {
		return false
	}
	d.take(kind)
	return true
}

// nested runs f one level deeper.
func (d *document) nested(f func()) {
	if d.depth++; d.depth > maxNested {
		panic(errUnread)
	}
	f()
	d.depth--
}

func (d *document) definition() {
	d.maybe(scanner.String) // a description
	if d.peek().kind == '{' {
		d.operations = append(d.operations, operation{kind: "query", set: d.set()})
		return
	}
	o := operation{kind: d.take(scanner.Ident).text}
	if o.kind == "fragment" {
		name := d.take(scanner.Ident).text
		d.take(scanner.Ident) // on
		d.take(scanner.Ident) // the type
		d.directives()
		d.fragments[name] = d.set()
		return
	}
	if d.peek().kind == scanner.Ident {
		o.name = d.take(scanner.Ident).text
	}
	if d.maybe('(') {
		for !d.maybe(')') {
			d.variable()
		}
	}
	d.directives()
	o.set = d.set()
	d.operations = append(d.operations, o)
}

// subscribes reports whether the operation of that name is a subscription. Without a name it is the first: the library refuses documents
// with more.
func (d *document) subscribes(name string) bool {
	for _, o := range d.operations {
		if name == "" || o.name == name {
			return o.kind == "subscription"
		}
	}
	return false
}

// variable reads a variable's definition.
func (d *document) variable() {
	d.maybe(scanner.String)
	d.take('$')
	name := d.take(scanner.Ident).text
	d.take(':')
	lists := 0
	for d.maybe('[') {
		lists++
	}
	switch t := d.take(scanner.Ident); t.text {
	case "String", "Int", "Float", "ID":
		d.builtin = append(d.builtin, variable{name, t})
	}
	d.maybe('!')
	for ; lists > 0; lists-- {
		d.take(']')
		d.maybe('!')
	}
	if d.maybe('=') {
		d.value("")
	}
	d.directives()
}

func (d *document) directives() {
	for d.maybe('@') {
		d.take(scanner.Ident)
		d.arguments()
	}
}

func (d *document) arguments() {
	if d.maybe('(') {
		for !d.maybe(')') {
			d.entry()
			d.directives()
		}
	}
}

// entry reads an argument, or a field of an object.
func (d *document) entry() {
	name := d.take(scanner.Ident).text
	d.take(':')
	d.value(name)
}

// value reads the value of an argument of that name.
func (d *document) value(name string) {
	switch t := d.peek(); t.kind {
	case '$':
		d.next++
		d.used[d.take(scanner.Ident).text] = name
	case '[':
		d.next++
		d.nested(func() {
			for !d.maybe(']') {
				d.value(name)
			}
		})
	case '{':
		d.next++
		d.nested(func() {
			for !d.maybe('}') {
				d.entry()
			}
		})
	case '-':
		d.next++
		d.value(name)
	case scanner.Int, scanner.Float, scanner.String, scanner.Ident:
		d.next++
	default:
		panic(errUnread)
	}
}

// set reads a selection set.
func (d *document) set() (out []selection) {
	d.take('{')
	d.nested(func() {
		for !d.maybe('}') {
			out = append(out, d.selection())
		}
	})
	return out
}

func (d *document) selection() (s selection) {
	if d.maybe('.') {
		d.take('.')
		d.take('.')
		if d.peek().kind == scanner.Ident {
			if s.spread = d.take(scanner.Ident).text; s.spread == "on" {
				s.spread = ""
				d.take(scanner.Ident)
			}
		}
		d.directives()
		if s.spread == "" {
			s.inner = d.set()
		}
		return s
	}
	s.field = d.take(scanner.Ident).text
	if d.maybe(':') {
		s.field = d.take(scanner.Ident).text
	}
	d.arguments()
	d.directives()
	if d.peek().kind == '{' {
		s.inner = d.set()
	}
	return s
}

// spelled is the query with the product's names where variables have types of GraphQL's own: clients write `$limit: Int!` for
// uint64, and the library takes a type for no other. Which type it is, the argument says that the variable is used for.
func (d *document) spelled(query string) string {
	var b strings.Builder
	from := 0
	for _, v := range d.builtin {
		if kind := argumentTypes[d.used[v.name]]; kind != "" {
			b.WriteString(query[from:v.kind.at])
			b.WriteString(string(kind))
			from = v.kind.at + len(v.kind.text)
		}
	}
	return b.String() + query[from:]
}

// argumentTypes are the types of arguments and of fields of filters, by name. A dimension has one type in all datasets.
var argumentTypes = func() map[string]dataset.Type {
	types := map[string]dataset.Type{"accountTag": dataset.String, "limit": dataset.Uint64, "level": "float64"}
	for _, d := range dataset.All {
		for _, x := range d.Dimensions {
			for _, op := range []store.Op{store.Equal, store.Greater, store.AtLeast, store.Less, store.AtMost, store.Not,
				store.In, store.NotIn, store.Like, store.NotLike} {
				types[x.Name+string(op)] = x.Type
			}
		}
	}
	return types
}()

// members are how many things a list of introspection has: the most of any type; of all types together as if eight had the most.
var members = map[string]int64{"types": 8, "fields": 120, "inputFields": 1000, "enumValues": 300, "args": 3,
	"directives": 6, "locations": 7, "interfaces": 1, "possibleTypes": 1}

// tooHeavy is where weights end: far above what is allowed, and far below what overflows.
const tooHeavy = 1 << 40

// weigh is how many fields the operations of the document ask for with all fragments put in: of one row of each dataset, and of all
// that introspection lists. It bounds what the library will build in memory, for which it has no limit.
func (d *document) weigh() int64 {
	known := map[string]int64{}
	var sum int64
	for _, o := range d.operations {
		sum = min(tooHeavy, sum+d.weight(o.set, known))
	}
	return sum
}

func (d *document) weight(set []selection, known map[string]int64) int64 {
	var sum int64
	for _, s := range set {
		switch {
		case s.spread != "":
			sum += d.fragment(s.spread, known)
		case s.field == "":
			sum += d.weight(s.inner, known)
		default:
			sum += 1 + max(1, members[s.field])*d.weight(s.inner, known)
		}
		sum = min(sum, tooHeavy)
	}
	return sum
}

// fragment weighs each fragment once. One that contains itself is weighed while it is: too heavy.
func (d *document) fragment(name string, known map[string]int64) int64 {
	if w, ok := known[name]; ok {
		return w
	}
	known[name] = tooHeavy
	known[name] = d.weight(d.fragments[name], known)
	return known[name]
}
