package aesgcm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// context is what the kernels need of a key. Its layout is known to gen and to key_amd64.s.
type context struct {
	_         [16]byte
	rounds    [15][16]byte // round keys, 11 or 15 of them; the salt is added to the first, as to all that it is added to
	powers    [32][16]byte // H^32 to H^1, each divided by x, bytes reversed
	karatsuba [32][8]byte  // the sums of their halves: those of lane l of register r stand in lane l of register r/2, half r%2
}

const contextSize = unsafe.Sizeof(context{})

// A Key is a secret that is ready for use. It is a small value that may be copied; no copy may be used after Vault.Wipe, which
// knows the one alone that it gets.
type Key struct {
	state unsafe.Pointer // *context, or *aeadKey without kernels
	size  extent
}

// An aeadKey is a key of crypto/cipher.
type aeadKey struct {
	cipher.AEAD
	salt [SaltSize]byte
}

// The sizes of keys.
const (
	keyNone = iota // wiped, or never made
	key128
	key256
	keyPortable
	keySizes
)

// Options say how a vault is made.
type Options struct {
	// Portable keeps to crypto/cipher even where the kernels would run.
	Portable bool

	// Unlocked permits keys in memory that the kernel may swap to disk, for a process that may not lock memory.
	Unlocked bool
}

// A Vault keeps keys outside the Go heap, in memory that is locked, left out of core dumps and of child processes,
// and wiped. Its methods may be called by any goroutine.
type Vault struct {
	opts Options

	mu     sync.Mutex
	chunks [][]byte
	free   []*context
}

// chunkSize is how much memory is asked for at a time: that of 256 keys.
const chunkSize = 256 << 10

// NewVault makes a vault without keys.
func NewVault(o Options) *Vault {
	o.Portable = o.Portable || !accelerated
	return &Vault{opts: o}
}

// Key makes a key from a secret of 16 or 32 bytes, which stays the caller's, who should wipe it.
func (v *Vault) Key(secret []byte, salt [SaltSize]byte) (Key, error) {
	if len(secret) != 16 && len(secret) != 32 {
		return Key{}, ErrKeySize
	}
	if v.opts.Portable {
		return portableKey(secret, salt)
	}
	c, err := v.take()
	if err != nil {
		return Key{}, err
	}
	k := Key{state: unsafe.Pointer(c), size: key128 << sizeShift}
	rounds := 10
	if len(secret) == 32 {
		k.size, rounds = key256<<sizeShift, 14
	}
	expand(c, &secret[0], rounds)
	subtle.XORBytes(c.rounds[0][:], c.rounds[0][:], salt[:])
	return k, nil
}

func portableKey(secret []byte, salt [SaltSize]byte) (Key, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return Key{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return Key{}, fmt.Errorf("aesgcm: %w", err)
	}
	return Key{state: unsafe.Pointer(&aeadKey{aead, salt}), size: keyPortable << sizeShift}, nil
}

// take finds room for a key.
func (v *Vault) take() (*context, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.free) == 0 {
		if err := v.grow(); err != nil {
			return nil, err
		}
	}
	c := v.free[len(v.free)-1]
	v.free = v.free[:len(v.free)-1]
	return c, nil
}

func (v *Vault) grow() error {
	m, unlocked, err := hiddenMemory(chunkSize)
	if err != nil {
		return fmt.Errorf("aesgcm: %w", err)
	}
	if unlocked != nil && !v.opts.Unlocked {
		_ = unix.Munmap(m)
		return fmt.Errorf("aesgcm: %d KiB for keys cannot be locked: %w; raise the limit: ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit",
			(len(v.chunks)+1)*chunkSize>>10, unlocked)
	}
	v.chunks = append(v.chunks, m)
	for at := chunkSize - int(contextSize); at >= 0; at -= int(contextSize) {
		v.free = append(v.free, (*context)(unsafe.Pointer(&m[at])))
	}
	return nil
}

// hiddenMemory asks for memory outside the Go heap that is in no core dump and in no child process. It says why the memory
// could not be locked, if so.
func hiddenMemory(size int) (m []byte, unlocked, err error) {
	m, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, nil, fmt.Errorf("memory for keys: %w", err)
	}
	for _, advice := range []int{unix.MADV_DONTDUMP, unix.MADV_DONTFORK} {
		if err := unix.Madvise(m, advice); err != nil {
			_ = unix.Munmap(m)
			return nil, nil, fmt.Errorf("memory for keys cannot be kept to this process: %w", err)
		}
	}
	return m, unix.Mlock(m), nil
}

// Wipe ends a key, which no burst may hold any more.
func (v *Vault) Wipe(k *Key) {
	wiped := *k
	*k = Key{}
	if s := wiped.size.size(); s != key128 && s != key256 {
		return
	}
	c := (*context)(wiped.state)
	v.mu.Lock()
	defer v.mu.Unlock()
	*c = context{}
	v.free = append(v.free, c)
}

// Close wipes all keys and gives the memory back. No burst may hold a key any more.
func (v *Vault) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var first error
	for _, m := range v.chunks {
		clear(m)
		if err := unix.Munmap(m); err != nil && first == nil {
			first = fmt.Errorf("aesgcm: %w", err)
		}
	}
	v.chunks, v.free = nil, nil
	return first
}
