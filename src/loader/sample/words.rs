//! The words of the sample. Their order is significant: the popular ones come first.

/// City, forum, latitude and longitude of its centre in thousandths of a degree.
#[rustfmt::skip]
pub(super) const CITIES: [(&str, &str, i64, i64); 6] = [
    ("Austin", "austinfood", 30_267, -97_743), ("Houston", "houstonfood", 29_760, -95_370),
    ("Portland", "portlandfood", 45_515, -122_679), ("Chicago", "chicagofood", 41_878, -87_630),
    ("Toronto", "foodtoronto", 43_653, -79_383), ("Seattle", "seattlefood", 47_606, -122_332),
];

#[rustfmt::skip]
pub(super) const FIRSTS: [&str; 64] = [
    "franklin's", "golden", "mama rosa's", "blue door", "old mill", "lucky", "red lantern", "uncle joe's",
    "harvest", "two rivers", "saffron", "night owl", "la perla", "el camino", "copper", "juniper", "big al's",
    "morning", "corner", "little saigon", "iron horse", "olive", "sakura", "bayou", "rosewood", "pine street",
    "lone star", "smoky joe's", "casa", "jade", "silver", "north end", "sunny", "maple", "black cat",
    "nonna's", "green papaya", "hilltop", "salt", "wild thyme", "king's", "harbor", "taj", "bluebird",
    "cactus", "dumpling", "miss ella's", "oak", "paloma", "riverside", "stone", "tiger", "union", "velvet",
    "white rabbit", "yellow", "zen", "anchor", "brick lane", "cedar", "dragon", "ember", "fig tree",
    "granny's",
];

#[rustfmt::skip]
pub(super) const KINDS: [&str; 36] = [
    "bbq", "kitchen", "taqueria", "diner", "noodle house", "pizzeria", "bistro", "grill", "cafe", "tavern",
    "bakery", "smokehouse", "ramen", "sushi", "cantina", "deli", "steakhouse", "brewpub", "trattoria",
    "curry house", "oyster bar", "burger stand", "food truck", "tea room", "creamery", "fry shop", "pho",
    "dim sum", "brasserie", "chophouse", "eatery", "coffee", "donuts", "grocery", "supper club", "wine bar",
];

/// Dishes with their category, the most popular first.
#[rustfmt::skip]
pub(super) const DISHES: [(&str, &str); 60] = [
    ("burger", "american"), ("pizza", "italian"), ("brisket", "barbecue"), ("tacos", "mexican"),
    ("ramen", "japanese"), ("fried chicken", "southern"), ("pho", "vietnamese"), ("sushi", "japanese"),
    ("wings", "bar food"), ("ribs", "barbecue"), ("pad thai", "thai"), ("fries", "sides"),
    ("burrito", "mexican"), ("dumplings", "chinese"), ("croissant", "pastry"), ("steak", "american"),
    ("pulled pork", "barbecue"), ("banh mi", "vietnamese"), ("queso", "mexican"), ("lasagna", "italian"),
    ("mac and cheese", "sides"), ("breakfast taco", "breakfast"), ("butter chicken", "indian"),
    ("oysters", "seafood"), ("lobster roll", "seafood"), ("falafel", "middle eastern"),
    ("shawarma", "middle eastern"), ("gumbo", "cajun"), ("poke bowl", "hawaiian"), ("pancakes", "breakfast"),
    ("carbonara", "italian"), ("enchiladas", "mexican"), ("kolache", "pastry"), ("bibimbap", "korean"),
    ("short ribs", "korean"), ("hot dog", "american"), ("samosa", "indian"), ("tiramisu", "dessert"),
    ("cheesecake", "dessert"), ("ice cream", "dessert"), ("donut", "pastry"), ("bagel", "breakfast"),
    ("reuben", "sandwiches"), ("cubano", "sandwiches"), ("clam chowder", "soups"), ("tortilla soup", "soups"),
    ("gnocchi", "italian"), ("risotto", "italian"), ("biryani", "indian"), ("pierogi", "polish"),
    ("schnitzel", "german"), ("poutine", "canadian"), ("ceviche", "peruvian"), ("empanadas", "argentinian"),
    ("jerk chicken", "caribbean"), ("hummus", "middle eastern"), ("green curry", "thai"),
    ("mapo tofu", "chinese"), ("peking duck", "chinese"), ("cornbread", "sides"),
];

/// Variants of dishes, to get more than the plain ones.
#[rustfmt::skip]
pub(super) const WAYS: [&str; 48] = [
    "smoked", "spicy", "vegan", "grilled", "truffle", "garlic", "double", "crispy", "house", "breakfast",
    "korean", "loaded", "honey", "lemon", "buffalo", "hand-made", "wood-fired", "sourdough", "bacon",
    "mushroom", "jalapeno", "sesame", "maple", "brown butter", "stuffed", "baked", "deep-fried", "charred",
    "pickled", "cold", "half", "family size", "mini", "open-faced", "slow-cooked", "cajun", "sichuan", "miso",
    "chili", "ginger", "coconut", "peanut", "herb", "blue cheese", "pesto", "kimchi", "curried", "seasonal",
];

#[rustfmt::skip]
pub(super) const DISH_ATTRIBUTES: [(&str, &str); 20] = [
    ("smoky", "descriptive"), ("spicy", "descriptive"), ("crispy", "descriptive"), ("juicy", "descriptive"),
    ("tender", "descriptive"), ("vegan", "selective"), ("gluten-free", "selective"),
    ("vegetarian", "selective"), ("cheesy", "descriptive"), ("fresh", "descriptive"),
    ("sweet", "descriptive"), ("greasy", "descriptive"), ("authentic", "descriptive"),
    ("italian", "selective"), ("halal", "selective"), ("huge", "descriptive"), ("salty", "descriptive"),
    ("fluffy", "descriptive"), ("dairy-free", "selective"), ("house-made", "descriptive"),
];

#[rustfmt::skip]
pub(super) const RESTAURANT_ATTRIBUTES: [&str; 18] = [
    "patio", "family friendly", "cheap", "late night", "live music", "dog friendly", "date night",
    "long line", "byob", "good service", "parking", "italian", "brunch", "cash only", "counter service",
    "rooftop", "kid's menu", "drive-through",
];

#[rustfmt::skip]
pub(super) const STREETS: [&str; 12] = [
    "E 11th St", "Main St", "Burnet Rd", "Congress Ave", "Oak St", "Division St", "Queen St W", "Pike St",
    "Westheimer Rd", "Lamar Blvd", "Clark St", "Alberta St",
];

#[rustfmt::skip]
pub(super) const AUTHORS: [&str; 12] = [
    "hungry", "taco_fan", "smoke_ring", "noodlehead", "brunchy", "crumbs", "fork", "saucy", "leftovers",
    "second_plate", "spice", "foodie",
];

#[rustfmt::skip]
pub(super) const REMARKS: [(&str, &str); 10] = [
    ("I dream of ", "."), ("Honestly, ", " is the best in town."), ("Skip the line and get ", " instead."),
    ("We had ", " last week and it was great."), ("Overrated: ", ", at least on a Sunday."),
    ("My vote goes to ", "!"), ("Can't go wrong with ", ", never had a bad one."),
    ("Tried ", " for the first time, will be back."), ("If you only eat one thing, make it ", "."),
    ("", " used to be better."),
];
