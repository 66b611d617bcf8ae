package record

import "github.com/sdr-sync/sdr-sync/schemas"

// What a key can mean besides the position of a field.
const (
	unknownKey = -1
	ignoredKey = -2
)

// key is one key as the vendor spells it, unescaped. It remembers what the record at hand holds under it.
type key struct {
	name  string
	token string // the key with its quotes as it stands in a page; "" if it needs escapes
	field int    // position in the schema, unknownKey or ignoredKey
	own   bool   // it is a spelling of the field's name, not of an alias
	next  *key   // the key that followed it last time

	quoted []byte // canonical JSON of the name with a colon behind it
	count  *int64 // records that carried it as an unknown key; nil beyond the bound

	record int64  // the last record with this key
	raw    []byte // its value there
	plain  bool   // it is a string that stands for itself, without its quotes
}

// names tells keys from one another. Vendors spell them in ways of their own, but always the same one, so it learns spellings.
type names struct {
	fields  map[string]int // normalised name or alias -> field
	own     []string       // normalised names of the fields
	ignored map[string]bool
	keys    map[string]*key
	unknown map[string]*int64
}

// Bounds that keep a vendor who makes keys up from filling the memory.
const (
	maxKeys    = 4096
	maxUnknown = 1000
)

func newNames(s *schemas.Stream, extra int, ignore []string) *names {
	n := &names{fields: map[string]int{}, ignored: map[string]bool{}, keys: map[string]*key{}, unknown: map[string]*int64{}}
	for i, f := range s.Fields {
		name := normalizeKey(f.Name)
		n.own = append(n.own, name)
		if i != extra {
			n.fields[name] = i
		}
	}
	for i, f := range s.Fields {
		for _, alias := range f.Aliases {
			if name := normalizeKey(alias); i != extra {
				if _, taken := n.fields[name]; !taken {
					n.fields[name] = i
				}
			}
		}
	}
	for _, name := range ignore {
		n.ignored[normalizeKey(name)] = true
	}
	return n
}

// normalizeKey lower-cases the letters A to Z of name and drops '_', '-' and spaces.
func normalizeKey(name string) string {
	out := make([]byte, 0, len(name))
	for i := range len(name) {
		if c := name[i]; c != '_' && c != '-' && c != ' ' {
			out = append(out, c)
		}
	}
	lowerASCII(out, 0)
	return string(out)
}

// find returns the key that is spelled name, unescaped.
func (n *names) find(name []byte) *key {
	if k := n.keys[string(name)]; k != nil {
		return k
	}
	k := &key{name: string(name), field: unknownKey}
	normalized := normalizeKey(k.name)
	if field, ok := n.fields[normalized]; ok {
		k.field, k.own = field, normalized == n.own[field]
	} else if n.ignored[normalized] {
		k.field = ignoredKey
	}
	quoted := appendQuoted(nil, name)
	if len(quoted) == len(name)+2 {
		k.token = string(quoted)
	}
	k.quoted = append(quoted, ':')
	n.keys[k.name] = k
	return k
}

// forget drops all spellings if there are too many. Records must not be under way.
func (n *names) forget() bool {
	if len(n.keys) <= maxKeys {
		return false
	}
	n.keys = map[string]*key{}
	return true
}

// countUnknown notes that a record carried k as an unknown key.
func (n *names) countUnknown(k *key) {
	if k.count == nil {
		count := n.unknown[k.name]
		if count == nil {
			if len(n.unknown) == maxUnknown {
				return
			}
			count = new(int64)
			n.unknown[k.name] = count
		}
		k.count = count
	}
	*k.count++
}
