package storetest

var (
	guardCases     []testCase
	linkCases      []testCase
	modelCases     []testCase
	keptModelCases []testCase
)
