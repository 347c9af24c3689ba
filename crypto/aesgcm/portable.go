package aesgcm

import (
	"encoding/binary"
	"unsafe"
)

// portables is what a burst keeps for packets that crypto/cipher treats.
type portables struct {
	aeads [MaxBurst]*aeadKey // by number
	nonce [SaltSize + IVSize]byte
	aad   [MaxAAD]byte
}

func (b *Burst) addPortable(i uint, k *Key) {
	if k.portable == nil {
		panic("aesgcm: the key was wiped, or never made")
	}
	b.portable.aeads[i] = k.portable
}

// eachPortable calls f for each packet without a kernel.
func (b *Burst) eachPortable(f func(i uint8, aead *aeadKey, nonce, text, aad []byte)) {
	o := &b.portable
	for kind := range kinds {
		c := &b.classes[keyPortable][kind]
		for _, i := range c.order[:c.n] {
			p := &b.packets[i]
			binary.LittleEndian.PutUint32(o.nonce[0:], p.salt)
			binary.LittleEndian.PutUint32(o.nonce[4:], p.iv[0])
			binary.LittleEndian.PutUint32(o.nonce[8:], p.iv[1])
			binary.LittleEndian.PutUint64(o.aad[0:], p.aad[0])
			binary.LittleEndian.PutUint64(o.aad[8:], p.aad[1])
			f(i, o.aeads[i], o.nonce[:], unsafe.Slice(p.text, p.textBits/8+TagSize), o.aad[:p.aadBits/8])
		}
	}
}

func (b *Burst) sealPortable() {
	b.eachPortable(func(_ uint8, aead *aeadKey, nonce, text, aad []byte) {
		aead.Seal(text[:0], nonce, text[:len(text)-TagSize], aad)
	})
}

func (b *Burst) openPortable() {
	b.eachPortable(func(i uint8, aead *aeadKey, nonce, text, aad []byte) {
		_, err := aead.Open(text[:0], nonce, text, aad)
		b.work.failed[i] = err != nil
	})
}
