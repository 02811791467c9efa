// Reads a log of ours with an implementation that is not ours: Go's checksum-database packages,
// from which the C2SP formats come. `tlog_check DIR [OLDER_CHECKPOINT [WITNESS_VKEY]]`.
//
// DIR is what `provost audit tiles` wrote for one log. Checked: the note's signature, every tile
// against the signed root, every entry against its leaf hash, inclusion of some records,
// consistency with an older checkpoint, and a witness's cosignature. Prints one line; exit code 1
// when anything does not hold.
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func fail(format string, args ...any) {
	fmt.Printf("FAIL "+format+"\n", args...)
	os.Exit(1)
}

func read(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		fail("%v", err)
	}
	return string(data)
}

// head is what the first three lines of a checkpoint say.
func head(text string, origin string) tlog.Tree {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[0] != origin {
		fail("not a checkpoint of %s", origin)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		fail("size: %v", err)
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		fail("root: %v", err)
	}
	tree := tlog.Tree{N: size}
	copy(tree.Hash[:], root)
	return tree
}

func open(msg string, verifier note.Verifier) *note.Note {
	opened, err := note.Open([]byte(msg), note.VerifierList(verifier))
	if err != nil {
		fail("note: %v", err)
	}
	return opened
}

// tiles reads the static files: C2SP has fixed the height, so it is not in the path.
type tiles struct{ dir string }

func (t tiles) Height() int { return 8 }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, tile := range wanted {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		bytes, err := os.ReadFile(filepath.Join(t.dir, path))
		if err != nil {
			return nil, err
		}
		data = append(data, bytes)
	}
	return data, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// entries reads every bundle.
func entries(dir string, size int64) [][]byte {
	var all [][]byte
	for n := int64(0); n*256 < size; n++ {
		width := size - n*256
		if width > 256 {
			width = 256
		}
		tile := tlog.Tile{H: 8, L: -1, N: n, W: int(width)}
		data := []byte(read(filepath.Join(dir, strings.Replace(tile.Path(), "tile/8/data/", "tile/entries/", 1))))
		for len(data) >= 2 {
			length := int(binary.BigEndian.Uint16(data))
			if len(data) < 2+length {
				fail("bundle %d is cut", n)
			}
			all = append(all, data[2:2+length])
			data = data[2+length:]
		}
		if len(data) != 0 {
			fail("bundle %d has bytes after its last entry", n)
		}
	}
	return all
}

// cosigner verifies cosignature/v1 lines (c2sp.org/tlog-cosignature).
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }
func (c cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	text := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(c.key, []byte(text), sig[8:])
}

func witness(vkey string) note.Verifier {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		fail("witness key")
	}
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	key, err2 := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || err2 != nil || len(key) != 33 || key[0] != 4 {
		fail("witness key")
	}
	return cosigner{parts[0], uint32(hash), key[1:]}
}

func main() {
	dir := os.Args[1]
	verifier, err := note.NewVerifier(strings.TrimSpace(read(filepath.Join(dir, "audit.pub"))))
	if err != nil {
		fail("key: %v", err)
	}
	tree := head(open(read(filepath.Join(dir, "checkpoint")), verifier).Text, verifier.Name())
	reader := tlog.TileHashReader(tree, tiles{dir})

	all := entries(dir, tree.N)
	if int64(len(all)) != tree.N {
		fail("%d entries of %d", len(all), tree.N)
	}
	var at []int64
	for i := int64(0); i < tree.N; i++ {
		at = append(at, tlog.StoredHashIndex(0, i))
	}
	// The reader checks each tile against the signed root before it gives a hash out.
	hashes, err := reader.ReadHashes(at)
	if err != nil {
		fail("tiles: %v", err)
	}
	for i, entry := range all {
		if tlog.RecordHash(entry) != hashes[i] {
			fail("entry %d is not the one in the tree", i)
		}
	}
	proofs := 0
	for i := int64(0); i < tree.N; i += 1 + tree.N/97 {
		proof, err := tlog.ProveRecord(tree.N, i, reader)
		if err != nil {
			fail("inclusion of %d: %v", i, err)
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, i, hashes[i]); err != nil {
			fail("inclusion of %d: %v", i, err)
		}
		proofs++
	}
	if len(os.Args) > 2 {
		older := head(open(read(os.Args[2]), verifier).Text, verifier.Name())
		proof, err := tlog.ProveTree(tree.N, older.N, reader)
		if err != nil {
			fail("consistency: %v", err)
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash); err != nil {
			fail("consistency: %v", err)
		}
		older.Hash[0] ^= 1
		if tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash) == nil {
			fail("consistency holds with a wrong root")
		}
	}
	if len(os.Args) > 3 {
		open(read(filepath.Join(dir, "checkpoint.cosigned")), witness(os.Args[3]))
	}
	fmt.Printf("ok %s %d entries %d proofs\n", verifier.Name(), tree.N, proofs)
}
