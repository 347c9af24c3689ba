package graph

import (
	"slices"
	"strings"
	"testing"

	"github.com/graph-gophers/graphql-go"
	"github.com/graph-gophers/graphql-go/ast"

	"causeway/analytics/dataset"
)

// The names of the product, copied from magic-transit.md 6.1, 6.2, 6.3 and 6.4. What we have beyond them is not listed.
const (
	productRates = `bitRate bitRateTenSeconds bitRateMinute bitRateFiveMinutes bitRateFifteenMinutes bitRateHour bitRateDay
		packetRate packetRateTenSeconds packetRateMinute packetRateFiveMinutes packetRateFifteenMinutes packetRateHour packetRateDay`
	productTraffic = `date datetime datetimeMinute datetimeFiveMinutes datetimeFifteenMinutes datetimeHour direction edgeColoCity
		edgeColoCode edgeColoCountry edgeColoGeohash edgeColoName edgePopName egressTunnelID egressTunnelName ingressTunnelID
		ingressTunnelName offRamp onRamp tunnelName`
	productHealth = `active datetime datetimeMinute datetimeFiveMinutes datetimeFifteenMinutes datetimeHalfOfHour datetimeHour
		edgeColoCity edgeColoCode edgeColoCountry edgeColoName edgeColoRegion edgePopName remoteTunnelIPv4 resultStatus siteName tunnelName`
	productPackets = `date datetime datetimeTenSeconds datetimeMinute datetimeFiveMinutes datetimeFifteenMinutes datetimeHour
		direction ingressTunnelID ingressTunnelName egressTunnelID egressTunnelName onRamp offRamp trafficType
		outcome mitigationSystem sampleInterval coloCity coloCode coloCountry coloGeohash coloName
		sourceAsn sourceAsnName sourceCountry sourceGeohash sourcePort
		destinationAsn destinationAsnName destinationCountry destinationGeohash destinationPort
		ipSourceAddress ipSourceSubnet ipDestinationAddress ipDestinationSubnet prefixTag leaseTag applicationTag
		ethertype ipFragmentOffset ipMoreFragments ipHeaderLength ipProtocol ipProtocolName ipTotalLength ipTotalLengthBuckets
		ipTtl ipTtlBuckets ipv4Checksum ipv4DontFragment ipv4Dscp ipv4Ecn ipv4Identification ipv4Options ipv6Dscp ipv6Ecn
		ipv6ExtensionHeaders ipv6FlowLabel ipv6Identification
		greChecksum greEthertype greHeaderLength greKey greSequenceNumber greVersion icmpType icmpCode icmpChecksum
		tcpAcknowledgementNumber tcpChecksum tcpDataOffset tcpFlags tcpFlagsString tcpMss tcpOptions tcpSackBlocks
		tcpSackPermitted tcpSequenceNumber tcpTimestampEcr tcpTimestampValue tcpUrgentPointer tcpWindowScale tcpWindowSize
		udpChecksum udpPayloadLength`
	productAttacks = `attackId attackType attackVector bits packets droppedBits droppedPackets commonTcpFlags commonTcpFlagsNames
		sourceIp sourcePort destinationIp destinationPort ipProtocol ipProtocolName mitigationReason mitigationScope mitigationType
		ruleId ruleName rulesetId rulesetOverrideId startDatetime endDatetime`
)

const (
	trafficType = "AccountMagicTransitTunnelTrafficAdaptiveGroups"
	healthType  = "AccountMagicTransitTunnelHealthChecksAdaptiveGroups"
	packetsType = "AccountMagicTransitNetworkAnalyticsAdaptiveGroups"
	attacksType = "AccountDosdAttackAnalyticsGroups"
)

func parsed(t *testing.T) *ast.Schema {
	t.Helper()
	s, err := graphql.ParseSchema(Schema, &roots{}, graphql.UseStringDescriptions(), graphql.UseFieldResolvers())
	if err != nil {
		t.Fatal(err)
	}
	return s.AST()
}

// fieldTypes are the fields of an object or an input, with their types.
func fieldTypes(s *ast.Schema, name string) map[string]string {
	out := map[string]string{}
	switch x := s.Types[name].(type) {
	case *ast.ObjectTypeDefinition:
		for _, f := range x.Fields {
			out[f.Name] = f.Type.String()
		}
	case *ast.InputObject:
		for _, f := range x.Values {
			out[f.Name.Name] = f.Type.String()
		}
	case *ast.EnumTypeDefinition:
		for _, v := range x.EnumValuesDefinition {
			out[v.EnumValue] = ""
		}
	}
	return out
}

// TestSchemaNames compares with the product's lists.
func TestSchemaNames(t *testing.T) {
	s := parsed(t)
	for name, fields := range map[string]string{
		trafficType + "Avg": productRates, trafficType + "Sum": "bits packets", trafficType + "Dimensions": productTraffic,
		trafficType:                "avg sum dimensions confidence",
		trafficType + "Confidence": "avg sum level",
		healthType:                 "count avg dimensions confidence",
		healthType + "Avg":         "tunnelState sampleInterval",
		healthType + "Dimensions":  productHealth,
		packetsType + "Avg":        productRates,
		packetsType + "Sum":        "bits packets",
		packetsType + "Dimensions": productPackets,
		packetsType:                "avg sum dimensions confidence",
		packetsType + "Confidence": "avg sum level",
		attacksType:                productAttacks,
		"Confidence":               "estimate isValid lower upper sampleSize",
		"Settings":                 "availableFields enabled maxDuration maxNumberOfFields maxPageSize notOlderThan",
		"account": `magicTransitTunnelTrafficAdaptiveGroups magicTransitTunnelHealthChecksAdaptiveGroups
			magicTransitNetworkAnalyticsAdaptiveGroups dosdAttackAnalyticsGroups settings`,
		trafficType + "Filter_InputObject": `AND OR direction_neq datetime_geq datetime_lt
			tunnelName_like tunnelName_notlike onRamp_in date_notin datetime_gt datetime_leq`,
		trafficType + "OrderBy": "datetimeFiveMinutes_ASC avg_bitRateFiveMinutes_DESC sum_bits_DESC tunnelName_DESC",
		healthType + "OrderBy":  "count_DESC avg_tunnelState_ASC",
	} {
		has := fieldTypes(s, name)
		for _, f := range strings.Fields(fields) {
			if _, ok := has[f]; !ok {
				t.Errorf("%s has no %s", name, f)
			}
		}
	}
	if n := len(strings.Fields(productTraffic)); n != 20 {
		t.Errorf("%d dimensions are listed for traffic, the product has 20", n)
	}
	if n := len(strings.Fields(productHealth)); n != 17 {
		t.Errorf("%d dimensions are listed for health, the product has 17", n)
	}
}

// TestSchemaTypes compares the types that the product's documents name.
func TestSchemaTypes(t *testing.T) {
	s := parsed(t)
	for field, want := range map[string]string{
		trafficType + "Avg.bitRate": "uint64!", trafficType + "Sum.bits": "uint64!", healthType + "Avg.tunnelState": "float32!",
		healthType + ".count": "uint64!", trafficType + "Dimensions.datetime": "Time!", trafficType + "Dimensions.date": "Date!",
		trafficType + "Dimensions.tunnelName": "string!", packetsType + "Dimensions.sourcePort": "uint16!",
		packetsType + "Dimensions.sourceAsn": "uint32!", packetsType + "Dimensions.ipTtl": "uint8!",
		attacksType + ".endDatetime": "Time", attacksType + ".bits": "uint64!",
		trafficType + "Filter_InputObject.AND": "[" + trafficType + "Filter_InputObject!]",
		"AccountFilter_InputObject.accountTag": "string",
	} {
		at := strings.LastIndex(field, ".")
		if got := fieldTypes(s, field[:at])[field[at+1:]]; got != want {
			t.Errorf("%s is %s, want %s", field, got, want)
		}
	}
	account := s.Types["account"].(*ast.ObjectTypeDefinition)
	args := account.Fields.Get("magicTransitTunnelTrafficAdaptiveGroups").Arguments
	for name, want := range map[string]string{"limit": "uint64!",
		"orderBy": "[" + trafficType + "OrderBy!]", "filter": trafficType + "Filter_InputObject"} {
		if got := args.Get(name).Type.String(); got != want {
			t.Errorf("argument %s is %s, want %s", name, got, want)
		}
	}
}

// TestNamesAreClear: a filter's name is cut at its underscore, orders are of one name, and an argument's name tells its type.
func TestNamesAreClear(t *testing.T) {
	for _, d := range dataset.All {
		names := map[string]bool{}
		for _, x := range d.Dimensions {
			if strings.Contains(x.Name, "_") || names[x.Name] {
				t.Errorf("%s: %s has an underscore, or stands twice", d.Name, x.Name)
			}
			names[x.Name] = true
			if argumentTypes[x.Name] != x.Type {
				t.Errorf("%s: %s is %s, and elsewhere %s", d.Name, x.Name, x.Type, argumentTypes[x.Name])
			}
		}
		if s := shapeOf(d.Name); len(s.orders) != 2*(len(d.Dimensions)+len(d.Measures)) {
			t.Errorf("%s: %d orders of %d dimensions and %d measures", d.Name, len(s.orders), len(d.Dimensions), len(d.Measures))
		}
	}
}

// introspection is what common tools ask first, in their way: fragments, types seven deep.
const introspection = `query IntrospectionQuery { __schema { queryType { name } mutationType { name } subscriptionType { name }
  types { ...FullType } directives { name description locations args { ...InputValue } } } }
fragment FullType on __Type { kind name description
  fields(includeDeprecated: true) { name description args { ...InputValue } type { ...TypeRef } isDeprecated deprecationReason }
  inputFields { ...InputValue } interfaces { ...TypeRef }
  enumValues(includeDeprecated: true) { name description isDeprecated deprecationReason } possibleTypes { ...TypeRef } }
fragment InputValue on __InputValue { name description type { ...TypeRef } defaultValue }
fragment TypeRef on __Type { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name
  ofType { kind name ofType { kind name ofType { kind name } } } } } } } }`

// TestWeights compares what a document is said to ask for with what the library writes: never less.
func TestWeights(t *testing.T) {
	s := serve(t, nil)
	for name, query := range map[string]string{
		"tools": introspection,
		"types": `{ __schema { types { name } } }`,
		"one":   `{ a: __type(name: "` + packetsType + `Filter_InputObject") { inputFields { name type { name ofType { name ofType { name } } } } } }`,
		"twice": `{ __type(name: "` + packetsType + `Filter_InputObject") { inputFields { type { ofType { ofType { inputFields { name } } } } } } }`,
		"fragments": about(`settings { magicTransitTunnelTrafficAdaptiveGroups { ...A a: enabled ...A } }`) +
			` fragment A on Settings { b: enabled c: enabled }`,
	} {
		d, err := read(query)
		if err != nil {
			t.Fatal(name, err)
		}
		_, body := s.post(tokenA, query, nil)
		if !strings.Contains(body, `"errors":null`) && !strings.Contains(body, "too much") {
			t.Errorf("%s: %.300s", name, body)
		}
		if leaves := int64(strings.Count(body, `":`)); leaves > 8*d.weigh()+2 && leaves > 100 {
			t.Errorf("%s: weighs %d, and has %d entries", name, d.weigh(), leaves)
		}
	}
	if d, _ := read(introspection); d.weigh() > maxCells {
		t.Errorf("the introspection of tools weighs %d", d.weigh())
	}
	for name, query := range map[string]string{
		"thrice":   `{ __type(name: "x") { inputFields { type { inputFields { type { inputFields { name } } } } } } }`,
		"doubling": `{ ...Aaa } ` + doubling(40),
		"cycle":    `{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }`,
	} {
		if d, err := read(query); err != nil || d.weigh() <= maxCells {
			t.Errorf("%s: %v: not too heavy", name, err)
		}
	}
}

func doubling(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(strings.ReplaceAll("fragment AX on Query { ...AY ...AY viewer { __typename } } ", "X", itoa(i)), "Y", itoa(i+1)))
	}
	return b.String() + "fragment A" + itoa(n) + " on Query { __typename }"
}

func itoa(n int) string { return string(rune('a'+n/26)) + string(rune('a'+n%26)) }

// TestMembers compares the sizes of lists that weights are made with to the schema.
func TestMembers(t *testing.T) {
	s := parsed(t)
	all := map[string][]int{}
	for _, x := range s.Types {
		switch x := x.(type) {
		case *ast.ObjectTypeDefinition:
			all["fields"] = append(all["fields"], len(x.Fields))
		case *ast.InputObject:
			all["inputFields"] = append(all["inputFields"], len(x.Values))
		case *ast.EnumTypeDefinition:
			all["enumValues"] = append(all["enumValues"], len(x.EnumValuesDefinition))
		}
	}
	for list, sizes := range all {
		var sum int
		for _, n := range sizes {
			sum += n
		}
		if most := slices.Max(sizes); int64(most) > members[list] || int64(sum) > members["types"]*members[list] {
			t.Errorf("%s: %d in one type and %d in all, where %d and %d are reckoned with", list, most, sum, members[list], members["types"]*members[list])
		}
	}
}
