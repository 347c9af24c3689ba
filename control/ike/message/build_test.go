package message

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
)

// What Append never writes is put together here, byte by byte.

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// plain is a payload with a body; chain fills in what comes next.
func plain(body []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(payloadHeader+len(body)))
	return append(b, body...)
}

// chain joins payloads: a type and a payload, a type and a payload...
func chain(parts ...any) (b []byte) {
	for i := 0; i < len(parts); i += 2 {
		p := slices.Clone(parts[i+1].([]byte))
		if i+2 < len(parts) {
			p[0] = byte(parts[i+2].(PayloadType))
		}
		b = append(b, p...)
	}
	return b
}

// proposal is one of an SA payload: more is 2 or 0, count the number of transforms that it claims to have.
func proposal(more, number, protocol byte, spi []byte, count byte, transforms []byte) []byte {
	size := 8 + len(spi) + len(transforms)
	b := []byte{more, 0, byte(size >> 8), byte(size), number, protocol, byte(len(spi)), count}
	return slices.Concat(b, spi, transforms)
}

func transform(last bool, kind byte, id uint16, attributes ...byte) []byte {
	b := []byte{3, 0, 0, byte(8 + len(attributes)), kind, 0, byte(id >> 8), byte(id)}
	if last {
		b[0] = 0
	}
	return append(b, attributes...)
}

func selector4() []byte {
	return []byte{7, 0, 0, 16, 0, 0, 255, 255, 192, 0, 2, 0, 192, 0, 2, 255}
}
