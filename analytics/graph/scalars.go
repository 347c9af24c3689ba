package graph

import (
	"encoding/json"
	"math"
	"slices"
	"time"
)

// The scalars as they are answered. GraphQL's own Int has 31 bits, which a link of some Gbit/s exceeds.
type (
	text    string
	number  uint64 // all of uint8 to uint64
	single  float64
	double  float64
	instant time.Time // seconds
	day     time.Time
)

func (text) ImplementsGraphQLType(name string) bool { return name == "string" }
func (number) ImplementsGraphQLType(name string) bool {
	return slices.Contains([]string{"uint8", "uint16", "uint32", "uint64"}, name)
}
func (single) ImplementsGraphQLType(name string) bool  { return name == "float32" }
func (double) ImplementsGraphQLType(name string) bool  { return name == "float64" }
func (instant) ImplementsGraphQLType(name string) bool { return name == "Time" }
func (day) ImplementsGraphQLType(name string) bool     { return name == "Date" }

// The library asks one interface of scalars in both directions. These only go out: arguments are `given`.
func (*text) UnmarshalGraphQL(any) error    { return errOutOnly }
func (*number) UnmarshalGraphQL(any) error  { return errOutOnly }
func (*single) UnmarshalGraphQL(any) error  { return errOutOnly }
func (*double) UnmarshalGraphQL(any) error  { return errOutOnly }
func (*instant) UnmarshalGraphQL(any) error { return errOutOnly }
func (*day) UnmarshalGraphQL(any) error     { return errOutOnly }

const errOutOnly = refusal("this scalar is not taken as an argument")

// MarshalJSON writes the value with the digits that 32 bits hold.
func (s single) MarshalJSON() ([]byte, error) { return json.Marshal(float32(s)) }
func (t instant) MarshalJSON() ([]byte, error) {
	return time.Time(t).UTC().AppendFormat(nil, `"`+time.RFC3339+`"`), nil
}
func (d day) MarshalJSON() ([]byte, error) {
	return time.Time(d).UTC().AppendFormat(nil, `"`+time.DateOnly+`"`), nil
}

// given is an argument as it came: a literal, or a variable out of JSON. Resolvers read it, since they can say where it stands and
// what is allowed; what a packer of the library finds wrong leaves a hole in the answer.
type given struct{ value any }

// ImplementsGraphQLType accepts all types: the schema has said what is allowed here.
func (given) ImplementsGraphQLType(string) bool { return true }

// UnmarshalGraphQL keeps the value.
func (g *given) UnmarshalGraphQL(value any) error {
	g.value = value
	return nil
}

// Nullable says that null may come: resolvers know which arguments are required.
func (*given) Nullable() {}

// refusal is an error that the client may read: it says what is wrong with the request.
type refusal string

func (r refusal) Error() string { return string(r) }

// finite makes a number of JSON of one that has none.
func finite(x float64) float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return 0
	}
	return x
}

// whole is a measure as the API has it: not below 0, cut to a whole number as the product does.
func whole(x float64) number {
	switch x = finite(x); {
	case x <= 0:
		return 0
	case x >= 1<<64:
		return math.MaxUint64
	}
	return number(x)
}
