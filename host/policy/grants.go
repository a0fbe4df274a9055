package policy

// Grants answers what one accepted script may do in one context.
type Grants struct{}
