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
	asked bool   // the field has the value that the list was asked for
	inner *key   // of a flattened member: stands before the first key in it, and has this one's name
	next  *key   // the key that followed it last time

	quoted []byte // canonical JSON of the name with a colon behind it
	count  *int64 // records that carried it as an unknown key; nil beyond the bound

	record int64  // the last record with this key
	raw    []byte // its value there
	plain  bool   // it is a string that stands for itself, without its quotes
}

// names tells keys from one another. Vendors spell them in ways of their own, but always the same one, so it learns spellings.
type names struct {
	fields    map[string]int // normalised name or alias -> field
	own       []string       // normalised names of the fields
	asked     []bool         // by field
	flattened map[string]bool
	ignored   map[string]bool
	keys      map[string]*key // by name; those inside a flattened member by its name, a NUL and theirs
	unknown   map[string]*int64
}

// Bounds that keep a vendor who makes keys up from filling the memory.
const (
	maxKeys    = 4096
	maxUnknown = 1000
)

func newNames(s *schemas.Stream, extra int, ignore []string) *names {
	n := &names{
		fields: map[string]int{}, flattened: map[string]bool{}, ignored: map[string]bool{}, keys: map[string]*key{}, unknown: map[string]*int64{},
	}
	for i, f := range s.Fields {
		name := normalizeKey(f.Name)
		n.own, n.asked = append(n.own, name), append(n.asked, f.Asked)
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
	if s.List != nil {
		for _, name := range s.List.Flatten {
			n.flattened[normalizeKey(name)] = true
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

// find returns the key that is spelled name, unescaped, inside the flattened member called within if that is not empty. Members of
// flattened members count as the record's own, but for the name under which they are unknown: "basic_info.colour".
func (n *names) find(within string, name []byte) *key {
	if within != "" {
		return n.findInner(within, string(name))
	}
	if k := n.keys[string(name)]; k != nil {
		return k
	}
	k := n.newKey(string(name), string(name))
	if n.flattened[normalizeKey(k.name)] {
		k.field, k.inner = unknownKey, &key{name: k.name}
	}
	n.keys[k.name] = k
	return k
}

func (n *names) findInner(within, name string) *key {
	place := within + "\x00" + name
	k := n.keys[place]
	if k == nil {
		k = n.newKey(name, within+"."+name)
		n.keys[place] = k
	}
	return k
}

// newKey returns the key that a record spells name, and that is called full where it means no field.
func (n *names) newKey(name, full string) *key {
	k := &key{name: full, field: unknownKey}
	normalized := normalizeKey(name)
	if field, ok := n.fields[normalized]; ok {
		k.field, k.own, k.asked = field, normalized == n.own[field], n.asked[field]
	} else if n.ignored[normalized] {
		k.field = ignoredKey
	}
	if quoted := appendQuoted(nil, []byte(name)); len(quoted) == len(name)+2 {
		k.token = string(quoted)
	}
	k.quoted = append(appendQuoted(nil, []byte(full)), ':')
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
